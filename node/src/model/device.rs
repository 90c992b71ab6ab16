//! Where the computations run: the `--device` flag and what this libtorch can do.

use anyhow::bail;
use tch::{Cuda, Device, utils};

/// What the user asks for with `--device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DeviceChoice {
    /// The best device there is: CUDA, else Apple's GPU on macOS, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first NVIDIA GPU; which one is first, `CUDA_VISIBLE_DEVICES` decides.
    Cuda,
    /// Apple's GPU, through Metal Performance Shaders.
    Mps,
}

impl DeviceChoice {
    /// The device that was asked for.
    ///
    /// # Errors
    /// If it is not there; the message says whether the libtorch in use or the hardware is at fault.
    pub(crate) fn resolve(self) -> anyhow::Result<Device> {
        match self {
            Self::Auto if Cuda::is_available() => Ok(Device::Cuda(0)),
            Self::Auto if cfg!(target_os = "macos") && utils::has_mps() => Ok(Device::Mps),
            Self::Auto | Self::Cpu => Ok(Device::Cpu),
            Self::Cuda if !utils::has_cuda() => bail!(
                "--device cuda: this libtorch has no CUDA; install one built with CUDA and point LIBTORCH at it, \
                 or use --device cpu"
            ),
            Self::Cuda if !Cuda::is_available() => bail!(
                "--device cuda: libtorch finds no usable NVIDIA GPU; check the driver with nvidia-smi and the \
                 variable CUDA_VISIBLE_DEVICES, or use --device cpu"
            ),
            Self::Cuda => Ok(Device::Cuda(0)),
            Self::Mps if !utils::has_mps() => {
                bail!("--device mps: this libtorch has no MPS, which exists on macOS only; use --device cpu")
            }
            Self::Mps => Ok(Device::Mps),
        }
    }
}
