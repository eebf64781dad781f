// Text: pieces of a line, operands between commas.
static vector<string> split(const string& s, char c) {
  vector<string> o;
  string cur;
  for (char ch : s) {
    if (ch == c) {
      o.push_back(cur);
      cur.clear();
    } else
      cur += ch;
  }
  o.push_back(cur);
  return o;
}
static std::set<string> words(const char* s) {
  std::istringstream in(s);
  std::set<string> o;
  string w;
  while (in >> w) o.insert(w);
  return o;
}
static string strip(const string& s) {
  size_t a = s.find_first_not_of(" \t\r\n");
  if (a == string::npos) return "";
  size_t b = s.find_last_not_of(" \t\r\n");
  return s.substr(a, b - a + 1);
}
static vector<string> operands(const string& s) {
  vector<string> o;
  string cur;
  int depth = 0;
  for (char ch : s) {
    if (ch == '{' || ch == '[') depth++;
    if (ch == '}' || ch == ']') depth--;
    if (ch == ',' && depth == 0) {
      o.push_back(strip(cur));
      cur.clear();
    } else
      cur += ch;
  }
  if (!strip(cur).empty()) o.push_back(strip(cur));
  return o;
}
static string text_of_file(const string& path) {
  std::ifstream in(path);
  if (!in) throw Fault("there is no file " + path);
  return string(std::istreambuf_iterator<char>(in), {});
}
