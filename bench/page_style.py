"""The style of the report's page: light and dark, wide and narrow, and on paper."""

from __future__ import annotations

PAGE_STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1a1a1a; --soft: #5c5c5c; --line: #dadada; --paper: #ffffff; --stripe: #f6f6f4;
  --met: #00694c; --missed: #b34700;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ink: #e8e8e8; --soft: #a8adb2; --line: #3a4046; --paper: #15181b; --stripe: #1d2125;
    --met: #2fc79a; --missed: #f58a42;
  }
}
* { box-sizing: border-box }
body {
  font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 78rem; margin: 0 auto; padding: 1rem 1.2rem; overflow-wrap: anywhere;
}
h1 { font-size: 1.5rem; margin: 0 0 .2rem }
h2 { font-size: 1rem; margin: 0; display: inline }
p { margin: .1rem 0 .7rem; max-width: 46rem }
.machine, figcaption { color: var(--soft); font-size: .85rem }
.machine { max-width: none }
.first { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem 2.5rem; margin-bottom: 1.5rem }
@media screen and (min-width: 62rem) {
  .first { grid-template-columns: minmax(0, 1fr) 30rem; grid-template-rows: auto 1fr }
  .first figure { grid-column: 2; grid-row: 1 / 3 }
}
.targets { border-left: 3px solid var(--missed); padding-left: .8rem; font-size: .85rem }
.targets p { margin: .1rem 0 .3rem }
.targets ul { margin: 0; padding-left: 1.1rem }
.targets.all-met { border-color: var(--met) }
figure { margin: .8rem 0; overflow-x: auto }
.first figure { margin: 0 }
svg { max-width: 100%; height: auto; display: block }
details svg { min-width: 26rem }
details { border-top: 1px solid var(--line); padding: .5rem 0 }
summary { cursor: pointer }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: .8rem; margin: .6rem 0 }
td, th { padding: .2rem .7rem; text-align: right; vertical-align: top }
td:first-child, th:first-child, td.word { text-align: left }
th { border-bottom: 1px solid var(--soft) }
tr:nth-child(even) td { background: var(--stripe) }
.missed { color: var(--missed); font-weight: 600 }
.met { color: var(--met) }
@media print {
  @page { margin: 14mm }
  html { font-size: 9.5pt }
  body { font-size: 1rem; max-width: none; padding: 0 }
  .first { grid-template-columns: minmax(0, 1fr) 7.6cm; grid-template-rows: auto 1fr; gap: 0 .6cm }
  .first figure { grid-column: 2; grid-row: 1 / 3 }
  details.printed::details-content { content-visibility: visible; display: block; block-size: auto }
  details:not(.printed) { display: none }
  summary { list-style: none }
  summary, h2, h3 { break-after: avoid }
  figure, tr, .targets li { break-inside: avoid }
  .first figure { break-inside: auto }
  figure, .table { overflow: visible }
  details svg { min-width: 0; max-width: 12.5cm }
  table { font-size: 7.5pt }
  td, th { padding: 1pt 4pt }
}
"""
