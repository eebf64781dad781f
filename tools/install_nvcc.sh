#!/bin/sh
# Before cibuildwheel's builds, in a manylinux_2_28 container: nvcc and the headers and static runtime that it links.
# Of CUDA 12: its runtime serves drivers from 525 on, that of CUDA 13 from 580 on. 12.9 is the last, and knows sm_120.
set -eu
if [ "${VFRNN_CUDA:-}" != ON ]; then exit 0; fi
case "$(uname -m)" in
  x86_64) folder=x86_64 ;;
  aarch64) folder=sbsa ;;
  *) echo "install_nvcc: no CUDA toolkit for $(uname -m)"; exit 1 ;;
esac
dnf -y install dnf-plugins-core
dnf config-manager --add-repo "https://developer.download.nvidia.com/compute/cuda/repos/rhel8/$folder/cuda-rhel8.repo"
dnf -y install cuda-nvcc-12-9 cuda-cudart-devel-12-9 cuda-cccl-12-9
