"""The wheels that libtorch is taken from, each pinned by version and SHA-256.

The files are those that `torch==2.13.0` itself asks for (its metadata names cuda-toolkit 13.0.3, which in
turn pins the nvidia packages). The torch wheel contains Python bindings for one Python version; swarm uses
only the C++ part, so the cp311 wheel is taken whatever Python runs the script.
"""

from __future__ import annotations

from typing import List, NamedTuple

VERSION = "2.13.0"


class Wheel(NamedTuple):
    """One wheel: what pip is asked for, the digest it must have, and about how many MB it takes."""

    name: str
    version: str
    platform: str
    megabytes: int
    sha256: str


# Columns: for which platform, for which variant (cpu: needed always; cuda: only with --cuda), then the
# fields of Wheel. libtorch_cpu.so of the Linux wheels is linked to libcudart and libcupti, even for CPU work.
_TABLE = """
linux-x86_64  cpu  torch                  2.13.0    manylinux_2_28_x86_64   527 60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7
linux-x86_64  cpu  nvidia-cuda-runtime    13.0.96   manylinux_2_17_x86_64     2 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
linux-x86_64  cpu  nvidia-cuda-cupti      13.0.85   manylinux_2_25_x86_64    11 4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8
linux-x86_64  cuda nvidia-cublas          13.1.1.3  manylinux_2_27_x86_64   423 37936a16db8fe4ac1f065c2139360608a543a09275cb1a1af612e08cfa065436
linux-x86_64  cuda nvidia-cuda-nvrtc      13.0.88   manylinux_2_12_x86_64    90 ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575
linux-x86_64  cuda nvidia-cudnn-cu13      9.20.0.48 manylinux_2_27_x86_64   366 0c45dd8eeb50b603f07995b1b300c62ffe6a1980482b82b3bcf94a4ca9d49304
linux-x86_64  cuda nvidia-cufft           12.0.0.61 manylinux_2_17_x86_64   214 6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3
linux-x86_64  cuda nvidia-cufile          1.15.1.6  manylinux_2_17_x86_64     1 08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44
linux-x86_64  cuda nvidia-curand          10.4.0.35 manylinux_2_27_x86_64    60 1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc
linux-x86_64  cuda nvidia-cusolver        12.0.4.66 manylinux_2_27_x86_64   201 0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112
linux-x86_64  cuda nvidia-cusparse        12.6.3.3  manylinux_2_17_x86_64   146 2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b
linux-x86_64  cuda nvidia-cusparselt-cu13 0.8.1     manylinux2014_x86_64    170 786ce87568c303fadb5afcc7102d454cd3040d75f6f8626f5db460d1871f4dd0
linux-x86_64  cuda nvidia-nccl-cu13       2.29.7    manylinux_2_18_x86_64   206 edd81538446786ec3b73972543e53bb43bcaf0bfc8ef76cb679fcc390ffe136d
linux-x86_64  cuda nvidia-nvjitlink       13.5.37   manylinux_2_12_x86_64    47 280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb
linux-x86_64  cuda nvidia-nvshmem-cu13    3.4.5     manylinux_2_17_x86_64    60 290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80
linux-aarch64 cpu  torch                  2.13.0    manylinux_2_28_aarch64  427 092790c696a760c729fd5722835f50b9d81fd7c8f141571f3f3cf4081a8f664c
linux-aarch64 cpu  nvidia-cuda-runtime    13.0.96   manylinux_2_17_aarch64    2 ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55
linux-aarch64 cpu  nvidia-cuda-cupti      13.0.85   manylinux_2_25_aarch64   10 796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151
linux-aarch64 cuda nvidia-cublas          13.1.1.3  manylinux_2_27_aarch64  543 b7a210458267ac818974c53038fbec2e969d5c99f305ab15c72522fa9f001dd5
linux-aarch64 cuda nvidia-cuda-nvrtc      13.0.88   manylinux_2_17_aarch64   43 d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b
linux-aarch64 cuda nvidia-cudnn-cu13      9.20.0.48 manylinux_2_27_aarch64  445 e31454ae00094b0c55319d9d15b6fa2fc50a9e1c0f5c8c80fb75258234e731e1
linux-aarch64 cuda nvidia-cufft           12.0.0.61 manylinux_2_17_aarch64  214 2708c852ef8cd89d1d2068bdbece0aa188813a0c934db3779b9b1faa8442e5f5
linux-aarch64 cuda nvidia-cufile          1.15.1.6  manylinux_2_27_aarch64    1 bdc0deedc61f548bddf7733bdc216456c2fdb101d020e1ab4b88d232d5e2f6d1
linux-aarch64 cuda nvidia-curand          10.4.0.35 manylinux_2_27_aarch64   62 133df5a7509c3e292aaa2b477afd0194f06ce4ea24d714d616ff36439cee349a
linux-aarch64 cuda nvidia-cusolver        12.0.4.66 manylinux_2_27_aarch64  224 02c2457eaa9e39de20f880f4bd8820e6a1cfb9f9a34f820eb12a155aa5bc92d2
linux-aarch64 cuda nvidia-cusparse        12.6.3.3  manylinux_2_17_aarch64  162 80bcc4662f23f1054ee334a15c72b8940402975e0eab63178fc7e670aa59472c
linux-aarch64 cuda nvidia-cusparselt-cu13 0.8.1     manylinux2014_aarch64   221 4dca476c50bf4780d46cd0bfbd82e2bc10a08e4fef7950917ce8d7578d22a23f
linux-aarch64 cuda nvidia-nccl-cu13       2.29.7    manylinux_2_18_aarch64  206 674a12383e3c38a1bcccae7d4f3633b37852230b6047883cb2f4c2d1b36d9bf5
linux-aarch64 cuda nvidia-nvjitlink       13.5.37   manylinux_2_17_aarch64   45 893f6f9a55b2720ed94913b5ba3332e972da8c78dfa2863d0244403dbd528ffc
linux-aarch64 cuda nvidia-nvshmem-cu13    3.4.5     manylinux_2_17_aarch64   60 6dc2a197f38e5d0376ad52cd1a2a3617d3cdc150fd5966f4aee9bcebb1d68fe9
macos-arm64   cpu  torch                  2.13.0    macosx_14_0_arm64       111 e76f9bcecc52b8ff711239a2f7547d5353df95878ab232f0773c1d95928b92f8
"""


def wheels(platform: str, variant: str) -> List[Wheel]:
    """The wheels that `variant` (cpu or cuda) needs on `platform`, torch first."""
    found = []
    for line in _TABLE.split("\n"):
        fields = line.split()
        if fields and fields[0] == platform and (fields[1] == "cpu" or variant == "cuda"):
            _, _, name, version, tag, megabytes, sha256 = fields
            found.append(Wheel(name, version, tag, int(megabytes), sha256))
    return found


def installed_megabytes(platform: str, variant: str) -> int:
    """About how much disk the finished folder takes."""
    if variant == "cuda":
        return 3700
    return 400 if platform == "macos-arm64" else 520
