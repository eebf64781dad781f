// Sphinx's scores, and pages for readers before pages for those who change the code.
var Scorer = {
  score: ([docname, title, anchor, descr, score, filename, kind]) => {
    if (docname.startsWith("design/") || ["changelog", "contributing"].includes(docname)) return score - 12;
    return docname.startsWith("how-to/") || docname.startsWith("tutorials/") ? score + 3 : score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
