#!/bin/sh
# Before cibuildwheel's builds, in a manylinux_2_28 container: nvcc and the headers and static runtime that it links.
set -eu
if [ "${VFRNN_CUDA:-}" != ON ]; then exit 0; fi
case "$(uname -m)" in
  x86_64) folder=x86_64 ;;
  aarch64) folder=sbsa ;;
  *) echo "install_nvcc: no CUDA toolkit for $(uname -m)"; exit 1 ;;
esac
dnf -y install dnf-plugins-core
dnf config-manager --add-repo "https://developer.download.nvidia.com/compute/cuda/repos/rhel8/$folder/cuda-rhel8.repo"
dnf -y install cuda-nvcc-13-0 cuda-cudart-devel-13-0 cuda-cccl-13-0
