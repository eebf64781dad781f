// How many CPUs this process may use, which a machine shared with others makes fewer than there are. Linux tells it;
// elsewhere the answer is that nothing is known.
#pragma once

#include <string>

namespace vfrnn {

// What is not limited: more CPUs than any machine has.
inline constexpr int unlimited_cpus = 1 << 20;

// The CPUs on which a thread of this process may run, and no more than the quota of its control groups. It is asked
// again after a fraction of a second: both can change while a process runs.
int usable_cpus();

// The least quota, in CPUs and rounded up, of the control groups (version 1 or 2) that the file `membership` names, and
// of those around them, in the file system mounted at `root`; unlimited_cpus where none has one. In a container the
// groups that are named may lie outside of what is mounted: the root is then the container's own group.
int cgroup_cpus(const std::string& membership, const std::string& root);

}  // namespace vfrnn
