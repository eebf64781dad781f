// Files that `nvdisasm -hex` wrote: sections .text.KERNEL and .nv.constant2.KERNEL, labels, instructions; of each
// second hex word the control bits: stall cycles (bits 41..44), scoreboards waited for (bits 52..57). A kernel is read
// when it is launched for the first time.
void SassDecoder::emit(const string& text, int line) {
  s = text;
  in = Instruction();
  in.line = line;
  in.text = s;
  ops = SassOperands();
  body = s;
  if (body[0] == '@') {
    const size_t space = body.find(' ');
    const SassOperand guard = preg(body.substr(1, space - 1));
    in.predicate = i32(guard.idx);
    in.predicate_negated = guard.inv;
    body = strip(body.substr(space));
  }
  sp = body.find(' ');
  o = body.substr(0, sp);
  args = operands(sp == string::npos ? "" : body.substr(sp));
  parts = split(o, '.');
  opcode = parts[0];
  static const std::set<string> known = words(
      "128 16816 1688 32 64 A1T0 ADD ALL AND ANY ARRIVE ASYNC BF16 BFLY BYPASS CEIL COLLECTIVE CONSTANT CTA "
      "DEFER_BLOCKING DIV DOWN E EQ EQU EX EX2 EXCH F16 F32 F64 FLOOR FTZ GE GEU GPU GT GTU HI IADD IDX "
      "IVALL L LE LEU LG2 LT LTU LU LUT MMA MOV NAN NE NEU NODEC NOINC NTZ NUM OR PACK_AB PHASECHK R RCP "
      "RCP64H REL RM RP RSQ RZ S S16 S32 S64 S8 SAT SC SHL SQRT STRONG SX32 SYNC TF32 TRANS64 TRAP TRUNC "
      "TRYWAIT U U16 U32 U64 U8 UP VIEW W WIDE X XOR XORSIGN");  // modifiers, of all opcodes together
  for (size_t y = 1; y < parts.size(); ++y)
    if (!known.count(parts[y])) bad("unsupported modifier " + parts[y]);
  is_float = opcode[0] == 'F' && opcode != "FENCE";
  is_double = opcode[0] == 'D' && opcode != "DEPBAR";
  const bool found = decode_integers() || decode_floats() || decode_bits() || decode_memory() || decode_warps();
  if (!found || in.execute == nullptr) bad("unsupported opcode " + o);
  in.jumps = in.execute == s_bra || in.execute == s_brx || in.execute == s_call || in.execute == s_ret;
}

// Lines of a file, and where its sections begin.
struct SassFile {
  vector<string> lines;
  std::map<string, size_t> sections;
};
static std::map<string, SassFile> sass_files;
static const SassFile& sass_file(const string& path) {
  const auto [found, fresh] = sass_files.try_emplace(path);
  SassFile& file = found->second;
  if (!fresh) return file;
  file.lines = split(text_of_file(path), '\n');
  for (size_t n = 0; n < file.lines.size(); ++n) {
    const size_t at = file.lines[n].find(".section\t");
    if (at != string::npos) file.sections[file.lines[n].substr(at + 9, file.lines[n].find(',', at) - at - 9)] = n;
  }
  return file;
}
static std::shared_ptr<Kernel> read_sass_kernel(const string& name, const string& path) {
  const SassFile& file = sass_file(path);
  const auto section = file.sections.find(".text." + name);
  if (section == file.sections.end()) throw Fault("there is no SASS of kernel " + name + " in " + path);
  auto k = std::make_shared<Kernel>();
  auto x = std::make_shared<SassKernel>();
  k->name = name;
  k->file = path;
  SassDecoder decoder;
  decoder.k = k.get();
  for (size_t n = section->second + 1; n < file.lines.size() && file.lines[n].find(".section\t") == string::npos; ++n) {
    const string line = strip(file.lines[n]);
    if (line.empty()) continue;
    if (line.compare(0, 3, "/* ") == 0) {  // the second word of the instruction
      if (k->instructions.empty()) continue;
      const u64 control = strtoull(line.c_str() + 3, nullptr, 16) >> 41;
      k->instructions.back().stall = u8(control & 15);
      k->instructions.back().wait = (control >> 11 & 63) != 0;
    } else if (line.compare(0, 2, "/*") == 0) {
      const u32 address = u32(strtoul(line.c_str() + 2, nullptr, 16));
      const size_t begin = line.find("*/") + 2;
      string text = line.substr(begin, line.rfind(';') - begin);
      const size_t comment = text.find("(*");
      if (comment != string::npos) text = text.substr(0, comment);
      decoder.emit(strip(text), int(n) + 1);
      x->at[address] = u32(k->instructions.size());
      x->addr.push_back(address);
      x->operands.push_back(decoder.ops);
      k->instructions.push_back(decoder.in);
    } else if (line.back() == ':') {
      decoder.labels[line.substr(0, line.size() - 1)] = u32(k->instructions.size());
    }
  }
  for (auto& [from, target] : decoder.fix) {
    const auto found = decoder.labels.find(target);
    if (found == decoder.labels.end()) throw Fault("SASS " + path + ": " + name + " has no label " + target);
    k->instructions[from].target = found->second;
  }
  k->register_count = NREG;
  const auto constants = file.sections.find(".nv.constant2." + name);
  for (size_t n = constants == file.sections.end() ? file.lines.size() : constants->second + 1;
       n < file.lines.size() && file.lines[n].find(".section\t") == string::npos; ++n) {
    const size_t at = file.lines[n].find(".byte");
    if (at == string::npos) continue;
    for (auto& byte : split(file.lines[n].substr(at + 5), ','))
      x->bank2.push_back(u8(strtoul(byte.c_str(), nullptr, 0)));
  }
  decoded_sass[k.get()] = x;
  return k;
}
// What a launch sets in constant bank 0: sizes of the block and the grid, the parameters.
static void sass_begin(const Launch& r, const Kernel* k) {
  current_sass = decoded_sass.at(k).get();
  constant_bank0.assign(0x210 + sim.params.size() + 16, 0);
  auto w = [&](int o, u32 v) { memcpy(constant_bank0.data() + o, &v, 4); };
  w(0, r.block[0]);
  w(4, 1);
  w(8, 1);
  w(0xc, r.grid[0]);
  w(0x10, r.grid[1]);
  w(0x14, r.grid[2]);
  w(0x28, 0x1000);
  w(0x140, r.cluster > 1 ? 1 : 0);
  memcpy(constant_bank0.data() + 0x210, sim.params.data(), sim.params.size());
  locals.clear();
}
