// From a line of nvdisasm to an instruction. The opcodes are decoded beside the functions that execute them, by topic:
// sass_integers.h, sass_floats.h, sass_bits.h, sass_memory.h, sass_warps.h. Closed: what is not known, an opcode, a
// modifier, an operand, is a fault with its name, when the kernel is read and before any of it runs.
static float parse_float(const string& s) {
  string z = s;
  if (z == "+INF" || z == "INF") return INFINITY;
  if (z == "-INF") return -INFINITY;
  if (z == "+QNAN" || z == "QNAN") return bits_as<float>(0x7fffffffu);
  if (z == "-QNAN") return bits_as<float>(0xffffffffu);
  return strtof(z.c_str(), 0);
}
static const std::map<string, int> sass_comparisons = {{"EQ", 0},   {"NE", 1},   {"LT", 2},   {"LE", 3},  {"GT", 4},
                                                       {"GE", 5},   {"EQU", 6},  {"NEU", 7},  {"LTU", 8}, {"LEU", 9},
                                                       {"GTU", 10}, {"GEU", 11}, {"NAN", 12}, {"NUM", 13}};
struct SassDecoder {
  Kernel* k = nullptr;
  std::map<string, u32> labels;
  vector<std::pair<u32, string>> fix;  // branches, and the labels they go to
  // Of the instruction that is decoded: its text, without the predicate, the opcode in parts, the operands.
  string s, body, o;
  vector<string> parts, args;
  string opcode;
  size_t sp = 0;
  bool is_float = false, is_double = false;
  Instruction in;
  SassOperands ops;

  [[noreturn]] void bad(const string& what) {
    throw Fault("SASS " + k->file + " line " + std::to_string(in.line) + ": " + what + ": " + s);
  }
  bool has(const char* z) const {
    for (size_t y = 1; y < parts.size(); ++y)
      if (parts[y] == z) return true;
    return false;
  }
  SassOperand preg(string z) const {
    SassOperand o;
    if (z[0] == '!') {
      o.inv = true;
      z = z.substr(1);
    }
    if (z == "PT")
      o.idx = PT_;
    else if (z == "UPT")
      o.idx = UPT_;
    else if (z[0] == 'P' && isdigit(z[1]))
      o.idx = P0_ + atoi(z.c_str() + 1);
    else if (z.compare(0, 2, "UP") == 0 && isdigit(z[2]))
      o.idx = UP0_ + atoi(z.c_str() + 2);
    else
      o.idx = ~0u;
    return o;
  }
  u32 reg(const string& z) const {
    if (z == "RZ") return RZ;
    if (z == "URZ") return URZ;
    if (z.compare(0, 2, "UR") == 0) return UR0 + atoi(z.c_str() + 2);
    if (z[0] == 'R' && isdigit(z[1])) return atoi(z.c_str() + 1);
    return ~0u;
  }
  SassOperand parse(string z) {
    SassOperand r;
    string orig = z;
    size_t ru = z.find(".reuse");
    if (ru != string::npos) z.erase(ru, 6);
    if (z[0] == '-' && (z[1] == 'R' || z[1] == 'U' || z[1] == 'c' || z[1] == '|')) {
      r.neg = true;
      z = z.substr(1);
    }
    if (z[0] == '~') {
      r.inv = true;
      z = z.substr(1);
    }
    if (z[0] == '|') {
      r.abs = true;
      z = z.substr(1, z.size() - 2);
    }
    size_t h = z.find(".H0_H0");
    if (h != string::npos) {
      r.half = 0;
      z.erase(h);
    }
    h = z.find(".H1_H1");
    if (h != string::npos) {
      r.half = 1;
      z.erase(h);
    }
    h = z.find(".64");
    if (h != string::npos) z.erase(h, 3);
    if (z.compare(0, 2, "c[") == 0) {
      r.kind = 2;
      r.bank = strtoul(z.c_str() + 2, 0, 16);
      size_t b = z.find("][") + 2;
      string in2 = z.substr(b, z.size() - b - 1);
      for (auto& term : split(in2, '+')) {
        u32 rr = reg(term);
        if (rr != ~0u) {
          if (rr != RZ) r.cidx = rr;
        } else
          r.imm += strtoul(term.c_str(), 0, 0);
      }
      return r;
    }
    u32 rr = reg(z);
    if (rr != ~0u) {
      r.idx = rr;
      return r;
    }
    if (z == "PR") {
      return r;
    }
    r.kind = 1;
    if (z.compare(0, 2, "0x") == 0 || z.compare(0, 3, "-0x") == 0) {
      i64 v = z[0] == '-' ? -(i64)strtoull(z.c_str() + 1, 0, 16) : (i64)strtoull(z.c_str(), 0, 16);
      r.imm = u64(v);
      if (is_double) r.imm = u64(v) << 32;
      return r;
    }
    if (is_double) {
      double d = z == "+INF" || z == "INF"        ? INFINITY
                 : z == "-INF"                    ? -INFINITY
                 : z.find("QNAN") != string::npos ? NAN
                                                  : strtod(z.c_str(), 0);
      r.imm = bits_as<u64>(d);
      return r;
    }
    if (is_float || opcode == "MUFU") {
      r.imm = bits_as<u32>(parse_float(z));
      return r;
    }
    if (isdigit(z[0]) || z[0] == '-' || z[0] == '+') {
      r.imm = u64(strtoll(z.c_str(), 0, 0));
      return r;
    }
    bad("operand");
    return r;
  }
  void general(int nd) {
    size_t b = 0;
    for (int y = 0; y < nd; ++y) ops.destinations.push_back(parse(args.at(b++)));
    while (b < args.size()) {
      SassOperand z = preg(args[b]);
      if (z.idx == ~0u || args[b][0] == '!') break;
      ops.predicates_out.push_back(z);
      b++;
    }
    for (; b < args.size(); ++b) {
      SassOperand z = preg(args[b]);
      if (z.idx != ~0u)
        ops.predicates_in.push_back(z);
      else
        ops.sources.push_back(parse(args[b]));
    }
  }
  void setp() {
    ops.predicates_out = {preg(args.at(0)), preg(args.at(1))};
    ops.sources = {parse(args[2]), parse(args[3])};
    for (size_t b = 4; b < args.size(); ++b) ops.predicates_in.push_back(preg(args[b]));
  }
  void addr(const string& z) {
    size_t b = z.rfind('[');
    string a = z.substr(b + 1, z.rfind(']') - b - 1);
    SassOperand base;
    base.idx = RZ;
    SassOperand u;
    u.idx = URZ;
    i64 off = 0;
    for (auto term : split(a, '+')) {
      bool w = false;
      u32 sc = 0;
      size_t d;
      if ((d = term.find(".64")) != string::npos) {
        w = true;
        term.erase(d, 3);
      }
      if ((d = term.find(".X")) != string::npos) {
        sc = atoi(term.c_str() + d + 2);
        term.erase(d);
      }
      if ((d = term.find(".U32")) != string::npos) bad("U32");
      u32 rr = reg(term);
      if (rr == ~0u)
        off += term[0] == '-' ? -(i64)strtoull(term.c_str() + 1, 0, 16) : (i64)strtoull(term.c_str(), 0, 16);
      else if (rr >= 256 && rr < 320) {
        u.idx = rr;
        if (w) in.variant |= 2;
      } else {
        base.idx = rr;
        if (w) in.variant |= 1;
        if (sc) in.variant |= sc << 8;
      }
    }
    in.offset = i32(off);
    ops.sources.push_back(base);
    ops.sources.push_back(u);
  }
  u8 size() const {
    return has("128") ? 16 : has("64") ? 8 : has("U16") || has("S16") ? 2 : has("U8") || has("S8") ? 1 : 4;
  }
  // Each decodes `in` and `ops` if the opcode is of its topic, and says whether it is.
  bool decode_integers();
  bool decode_floats();
  bool decode_bits();
  bool decode_memory();
  bool decode_warps();
  void emit(const string& text, int line);
};
