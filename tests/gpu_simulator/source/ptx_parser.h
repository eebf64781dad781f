// Files of PTX: which kernels they hold, parameters, registers with their scopes, labels, statements. A kernel is read
// when it is launched for the first time. Source: PTX ISA, "Syntax", "State Spaces, Types, and Variables", "Kernel and
// Function Directives: .entry".
void PtxDecoder::emit(const string& statement) {
  string s = strip(statement);
  stmt = s;
  in = Instruction();
  in.line = line;
  in.text = s;
  if (s[0] == '@') {
    size_t sp = s.find_first_of(" \t");
    string pr = s.substr(1, sp - 1);
    if (pr[0] == '!') {
      in.predicate_negated = true;
      pr = pr.substr(1);
    }
    in.predicate = reg(pr);
    s = strip(s.substr(sp));
  }
  const size_t sp = s.find_first_of(" \t");
  const string o = s.substr(0, sp), rest = sp == string::npos ? "" : s.substr(sp);
  parts = split(o, '.');
  args = operands(rest);
  opcode = parts[0];
  type = parts.back();
  is_float = type == "f32";
  is_double = type == "f64";
  static const std::set<string> known = words(
      "acq_rel acquire add aligned and approx arrive async b16 b32 b64 b8 bf16 bf16x2 bfly ca cg clamp cluster "
      "col commit_group cta down eq equ expect_tx f16 f16x2 f32 f64 ftz full ge geu gl global gpu gt gtu hi "
      "hs idx init l le leu lo ls lt ltu m16n8k16 m16n8k8 m8n8 mbarrier::complete_tx::bytes mbarrier_init nan ne "
      "neu num or param parity pred proxy r relaxed release rm rmi rn rna rni row rpi rz rzi s16 s32 s64 s8 "
      "sat sc shared shared::cluster shared::cta sync sync_restrict::shared::cluster sys tf32 to try_wait u16 u32 "
      "u64 u8 uni up v2 v4 "
      "trans volatile wait wait_group warp weak wide wrap x1 x2 x4 xor abs xorsign");  // of all opcodes together
  for (size_t y = 1; y < parts.size(); ++y)
    if (!known.count(parts[y])) bad("unsupported modifier " + parts[y]);
  const bool flushes = has("approx") || opcode == "fma" || opcode == "cvt";
  if ((has("ftz") && !flushes) || (has("sat") && opcode != "cvt")) bad("unsupported .ftz or .sat");
  const bool found = decode_warps() || decode_memory() || decode_bits() || decode_conversions() || decode_arithmetic();
  if (!found || in.execute == nullptr) bad("unsupported opcode " + o);
  in.jumps = in.execute == x_bra || in.execute == x_brx;
  k->instructions.push_back(std::move(in));
}

struct PtxFile {
  string path, text;
  std::set<string> dynamic_shared;  // names of .extern .shared arrays
};
// A kernel's name without the process number that nvcc adds to the name of some anonymous namespaces: the PTX of
// another architecture is made by another process.
static string stable_name(const string& name) {
  static const std::regex numbered("(\\d+)(_GLOBAL__N__[0-9a-f]{8}_\\w+?_cu_[0-9a-f]{8})");
  std::smatch found;
  if (!std::regex_search(name, found, numbered)) return name;
  const size_t end = size_t(found.position(2)) + std::stoul(found[1]);  // of the namespace's name
  return found.prefix().str() + found[2].str() + name.substr(end);
}
struct PtxEntry {
  std::shared_ptr<PtxFile> file;
  string name;  // as it stands there
  size_t at;    // of it
};
static void index_ptx(const string& path, std::map<string, PtxEntry>& entries) {
  auto file = std::make_shared<PtxFile>();
  file->path = path;
  file->text = text_of_file(path);
  const string& text = file->text;
  for (size_t at = text.find(".extern .shared"); at != string::npos; at = text.find(".extern .shared", at + 1)) {
    const size_t bracket = text.find('[', at), space = text.find_last_of(" \t", bracket);
    file->dynamic_shared.insert(text.substr(space + 1, bracket - space - 1));
  }
  for (size_t at = text.find(".entry"); at != string::npos; at = text.find(".entry", at + 1)) {
    const size_t name = text.find_first_not_of(" \t", at + 6), end = text.find_first_of("( \t\n", name);
    const string found = text.substr(name, end - name);
    entries[stable_name(found)] = {file, found, name};
  }
}
// Of the list between the parentheses after the name; `bytes` are all of them.
static vector<Param> ptx_parameters(const string& list, u32& bytes) {
  vector<Param> found;
  bytes = 0;
  for (auto& declaration : operands(list)) {
    std::istringstream in(declaration);
    string word, name;
    u32 align = 0, size = 0, count = 1;
    bool pointer = false;
    while (in >> word) {
      if (word == ".align") {
        u32 value = 0;
        in >> value;
        if (!pointer) align = value;  // of a pointer it is that of what it points to
      } else if (word == ".ptr") {
        pointer = true;
      } else if (word[0] == '.') {
        if (word != ".param" && word != ".global") size = type_bytes(word.substr(1));
      } else {
        const size_t bracket = word.find('[');
        if (bracket != string::npos) count = u32(atoi(word.c_str() + bracket + 1));
        name = word.substr(0, bracket);
      }
    }
    if (align == 0) align = size;
    bytes = (bytes + align - 1) / align * align;
    found.push_back({name, size * count, bytes});
    bytes += size * count;
  }
  return found;
}
// `.reg .TYPE a, b, c<5>`: in the innermost scope.
static void ptx_registers(PtxDecoder& decoder, const string& declaration, u32& count) {
  std::istringstream in(declaration);
  string type, names;
  in >> type;
  std::getline(in, names, '\0');
  auto& scope = decoder.scopes.empty() ? decoder.regs : decoder.scopes.back();
  for (auto& listed : split(names, ',')) {
    const string name = strip(listed);
    const size_t bracket = name.find('<');
    if (bracket == string::npos) {
      scope[name] = count++;
    } else {
      const int last = atoi(name.c_str() + bracket + 1);
      for (int q = 0; q < last; ++q) scope[name.substr(0, bracket) + std::to_string(q)] = count++;
    }
  }
}
static std::shared_ptr<Kernel> read_ptx_kernel(const PtxEntry& entry) {
  const string& text = entry.file->text;
  auto k = std::make_shared<Kernel>();
  k->name = entry.name;
  k->file = entry.file->path;
  size_t i = text.find_first_of("({", entry.at);
  if (text[i] == '(') {
    const size_t end = text.find(')', i);
    k->params = ptx_parameters(text.substr(i + 1, end - i - 1), k->parameter_bytes);
    i = text.find('{', end);
  }
  PtxDecoder decoder;
  decoder.k = k.get();
  decoder.dynamic_shared = &entry.file->dynamic_shared;
  u32 registers = 1;
  int line = 1 + int(std::count(text.begin(), text.begin() + ptrdiff_t(i), '\n'));
  string statement, last_label;
  for (++i; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (c == '/' && text[i + 1] == '/') {
      i = text.find('\n', i) - 1;
      continue;
    }
    if (c == '/' && text[i + 1] == '*') {
      const size_t end = text.find("*/", i) + 1;
      line += int(std::count(text.begin() + ptrdiff_t(i), text.begin() + ptrdiff_t(end), '\n'));
      i = end;
      continue;
    }
    if (statement.empty()) {
      if (isspace(c)) continue;
      if (text.compare(i, 4, ".loc") == 0) {  // of debuggers: the rest of the line, without a semicolon
        i = text.find('\n', i) - 1;
        continue;
      }
      decoder.line = line;
      if (c == '{') {
        decoder.scopes.emplace_back();
        continue;
      }
      if (c == '}') {
        if (decoder.scopes.empty()) break;
        decoder.scopes.pop_back();
        continue;
      }
    }
    const bool label =
        c == ':' && text[i + 1] != ':' && text[i - 1] != ':' && statement.find_first_of(" \t\n[") == string::npos;
    if (label) {
      decoder.labels[statement] = u32(k->instructions.size());
      last_label = statement;
    } else if (c != ';') {
      statement += c;
      continue;
    } else if (statement.compare(0, 4, ".reg") == 0) {
      ptx_registers(decoder, statement.substr(4), registers);
    } else if (statement.compare(0, 14, ".branchtargets") == 0) {
      decoder.tables[last_label] = operands(statement.substr(14));
    } else if (statement[0] == '.' && statement.compare(0, 7, ".pragma") != 0) {
      decoder.stmt = statement;
      decoder.bad("unsupported directive");
    } else if (statement[0] != '.') {
      decoder.emit(statement);
    }
    statement.clear();
  }
  const auto place = [&](const string& label) {
    const auto found = decoder.labels.find(label);
    if (found == decoder.labels.end()) throw Fault("PTX " + k->file + ": " + k->name + " has no label " + label);
    return found->second;
  };
  for (auto& [from, label] : decoder.fix) k->instructions[from].target = place(label);
  for (auto& [from, table] : decoder.fix_tables)
    for (auto& label : decoder.tables[table]) k->instructions[from].table.push_back(place(label));
  k->register_count = registers;
  Instruction end;
  end.execute = x_ret;
  end.text = "(end)";
  k->instructions.push_back(end);
  return k;
}
