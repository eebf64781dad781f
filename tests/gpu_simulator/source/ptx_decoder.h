// From a statement of PTX to an instruction. The opcodes are decoded beside the functions that execute them, by topic:
// ptx_bits.h, ptx_memory.h, ptx_warps.h, ptx_conversions.h, ptx_arithmetic.h. Closed: what is not known, an opcode, a
// modifier, an operand, is a fault with its name, when the kernel is read and before any of it runs.
//
// x_NAME executes an opcode (a template over the type where there are several); it gets the thread and the instruction.
// Semantics: PTX ISA, the section of the instruction's own name under "Instruction Set".
#define SOURCE_A value_of(t, i.a)
#define SOURCE_B value_of(t, i.b)
#define SOURCE_C value_of(t, i.c)
#define SET_RESULT(x) (t.registers[i.d.reg] = (x))
static inline u64 value_of(const Thread& t, const Operand& o) {
  return o.imm ? o.value : t.registers[o.reg];
}

static int type_bytes(const string& t) {
  int b = atoi(t.c_str() + 1);
  if (t == "pred") return 1;
  return b / 8;
}
#define BY_INTEGER_TYPE(function, t)                   \
  (t == "s16" || t == "b16x"  ? (Execute)function<i16> \
   : t == "u16" || t == "b16" ? (Execute)function<u16> \
   : t == "s32"               ? (Execute)function<i32> \
   : t == "u32" || t == "b32" ? (Execute)function<u32> \
   : t == "s64"               ? (Execute)function<i64> \
   : t == "u64" || t == "b64" ? (Execute)function<u64> \
                              : (Execute) nullptr)

struct PtxDecoder {
  Kernel* k = nullptr;
  const std::set<string>* dynamic_shared = nullptr;  // names of arrays in dynamic shared memory: all at offset 0
  std::map<string, u32> regs;
  vector<std::map<string, u32>> scopes;
  std::map<string, u32> labels;
  vector<std::pair<u32, string>> fix;         // branches, and the labels they go to
  vector<std::pair<u32, string>> fix_tables;  // those of brx.idx, and the label of their .branchtargets
  std::map<string, vector<string>> tables;
  int line = 0;
  // Of the statement that is decoded: its text, the opcode in parts, the operands, the type.
  string stmt;
  vector<string> parts, args;
  string opcode, type;
  bool is_float = false, is_double = false;
  Instruction in;

  [[noreturn]] void bad(const string& what) {
    throw Fault("PTX " + k->file + " line " + std::to_string(line) + ": " + what + ": " + stmt);
  }
  u32 reg(const string& n) {
    for (int s = (int)scopes.size() - 1; s >= 0; --s) {
      auto it = scopes[s].find(n);
      if (it != scopes[s].end()) return it->second;
    }
    auto it = regs.find(n);
    if (it == regs.end()) {
      bad("unknown register " + n);
    }
    return it->second;
  }
  Operand op(const string& s0) {
    string s = strip(s0);
    Operand o;
    if (s.empty()) bad("empty operand");
    if (s == "_") {
      o.reg = 0;
      return o;
    }
    if (s[0] == '0' && (s[1] == 'f' || s[1] == 'F')) {
      o.imm = 1;
      o.value = strtoull(s.c_str() + 2, 0, 16);
      return o;
    }
    if (s[0] == '0' && (s[1] == 'd' || s[1] == 'D')) {
      o.imm = 1;
      o.value = strtoull(s.c_str() + 2, 0, 16);
      return o;
    }
    if (isdigit(s[0]) || (s[0] == '-' && isdigit(s[1]))) {
      o.imm = 1;
      o.value = s[0] == '-' ? (u64)strtoll(s.c_str(), 0, 0) : strtoull(s.c_str(), 0, 0);
      return o;
    }
    if (s == "%cluster_ctarank") bad("sreg operand");
    if (dynamic_shared->count(s)) {
      o.imm = 1;
      o.value = 0;
      return o;
    }
    for (auto& q : k->params)
      if (q.name == s) {
        o.imm = 1;
        o.value = q.off;
        return o;
      }
    o.reg = reg(s);
    return o;
  }
  vector<Operand> vec(const string& s) {
    vector<Operand> o;
    string q = strip(s);
    if (q[0] == '{') {
      for (auto& x : operands(q.substr(1, q.size() - 2))) o.push_back(op(x));
    } else
      o.push_back(op(q));
    return o;
  }
  void addr(const string& s, Operand& base, i32& off, string* param = nullptr) {
    string q = strip(s);
    if (q[0] != '[') bad("address");
    q = strip(q.substr(1, q.size() - 2));
    size_t pl = q.find('+');
    off = 0;
    if (pl != string::npos) {
      off = (i32)strtol(q.c_str() + pl + 1, 0, 0);
      q = strip(q.substr(0, pl));
    }
    if (param) {
      *param = q;
      return;
    }
    base = op(q);
  }
  bool has(const char* modifier) const {
    for (auto& y : parts)
      if (y == modifier) return true;
    return false;
  }
  // Up to five operands, in order.
  void take_operands() {
    in.d = op(args.at(0));
    in.a = op(args.at(1));
    if (args.size() > 2) in.b = op(args[2]);
    if (args.size() > 3) in.c = op(args[3]);
    if (args.size() > 4) in.e = op(args[4]);
  }
  // Each decodes `in` if the opcode is of its topic, and says whether it is.
  bool decode_memory();
  bool decode_warps();
  bool decode_bits();
  bool decode_conversions();
  bool decode_arithmetic();
  void emit(const string& statement);
};
