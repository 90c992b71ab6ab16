//! Residual networks for small pictures.
//!
//! Pre-activation blocks (He et al., arXiv 1603.05027): normalise, ReLU, 3 x 3 convolution, twice, and what came in
//! is added. A stage is a row of blocks; each stage after the first halves height and width and doubles the
//! channels. Group normalisation (Wu and He, arXiv 1803.08494) takes the place of batch normalisation: it keeps no
//! running statistics, which no delta would carry and which would differ on devices that see different classes.
//!
//! The layout knows vectors and matrices, so a convolution's weight is shared as `[out, in * rows * columns]`, its
//! rows the filters; Muon takes them as such (Jordan, "94% on CIFAR-10 in 3.29 seconds", arXiv 2404.00498). Parameter
//! names are those of timm's `resnetv2` models.

use serde::{Deserialize, Serialize};

use super::images::Images;
use super::{Init, Parameter, within};

/// Upper limits: what a genesis may ask a device to allocate.
const MAX_WIDTH: u32 = 2048;
const MAX_STAGES: usize = 6;
const MAX_BLOCKS: u32 = 64;

/// The sizes of a residual network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResnetConfig {
    /// Channels of the first stage; each further stage has twice as many.
    pub width: u32,
    /// Blocks of each stage.
    pub blocks: Vec<u32>,
    /// Groups of channels that are normalised together.
    pub groups: u32,
    /// The pictures.
    pub images: Images,
}

impl ResnetConfig {
    /// The named presets: `digits` (8 x 8 grey, 20 k parameters), `mnist` (28 x 28 grey, 0.3 M) and `cifar` (32 x 32 in
    /// colour, 2.8 M), all for ten classes.
    pub const PRESETS: [&'static str; 3] = ["digits", "mnist", "cifar"];

    /// The preset called `name`, or `None`.
    pub fn preset(name: &str) -> Option<Self> {
        let (width, blocks, groups, channels, side): (u32, &[u32], u32, u32, u32) = match name {
            "digits" => (16, &[1, 1], 4, 1, 8),
            "mnist" => (24, &[1, 1, 2], 8, 1, 28),
            "cifar" => (64, &[2, 2, 2], 16, 3, 32),
            _ => return None,
        };
        let images = Images { channels, height: side, width: side, classes: 10, class_names: Vec::new() };
        Some(Self { width, blocks: blocks.to_vec(), groups, images })
    }

    /// Channels of the last stage.
    pub fn last_width(&self) -> u32 {
        self.width << (self.blocks.len().max(1) - 1)
    }

    /// Checks every size; the error names the offending key.
    pub(super) fn validate(&self) -> Result<(), String> {
        within("resnet.width", self.width, 1, MAX_WIDTH)?;
        within("resnet.groups", self.groups, 1, self.width)?;
        if !self.width.is_multiple_of(self.groups) {
            return Err(format!(
                "model.resnet.groups = {}: must divide model.resnet.width ({})",
                self.groups, self.width
            ));
        }
        if self.blocks.is_empty() || self.blocks.len() > MAX_STAGES {
            return Err(format!(
                "model.resnet.blocks: {} stages; there must be 1 to {MAX_STAGES}",
                self.blocks.len()
            ));
        }
        for blocks in &self.blocks {
            within("resnet.blocks", *blocks, 1, MAX_BLOCKS)?;
        }
        self.images.validate("resnet.images")?;
        let shortest = self.images.height.min(self.images.width);
        if shortest >> (self.blocks.len() - 1) == 0 {
            return Err(format!(
                "model.resnet.blocks: {} stages halve a side of {shortest} pixels to nothing; take fewer",
                self.blocks.len()
            ));
        }
        Ok(())
    }

    /// All parameters in layout order.
    ///
    /// Convolutions start as He et al. (arXiv 1502.01852) have them, with variance 2 / inputs, and those that write
    /// into the residual stream are divided by the root of the number of blocks, as in GPT-2.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut all = Vec::new();
        let blocks = self.blocks.iter().sum::<u32>().max(1);
        // std = sqrt(2 / (inputs * share)) in millionths, by whole numbers only.
        let he = |inputs: usize, share: u32| {
            let variance = 2_000_000_000_000 / (inputs.max(1) as u64 * u64::from(share));
            Init::Normal { std_millionths: u32::try_from(variance.isqrt()).unwrap_or(u32::MAX) }
        };
        let mut add = |name: String, shape: &[usize], init, hidden| {
            all.push(Parameter { name, shape: shape.to_vec(), init, hidden });
        };
        let mut channels = self.width as usize;
        let pixels = 9 * self.images.channels as usize;
        add("stem.conv.weight".into(), &[channels, pixels], he(pixels, 1), false);
        for (stage, count) in self.blocks.iter().enumerate() {
            let wide = (self.width as usize) << stage;
            for block in 0..*count {
                let p = |rest: &str| format!("stages.{stage}.blocks.{block}.{rest}");
                add(p("norm1.weight"), &[channels], Init::Ones, false);
                add(p("norm1.bias"), &[channels], Init::Zeros, false);
                add(p("conv1.weight"), &[wide, 9 * channels], he(9 * channels, 1), true);
                add(p("norm2.weight"), &[wide], Init::Ones, false);
                add(p("norm2.bias"), &[wide], Init::Zeros, false);
                add(p("conv2.weight"), &[wide, 9 * wide], he(9 * wide, blocks), true);
                if channels != wide {
                    add(p("downsample.conv.weight"), &[wide, channels], he(2 * channels, 1), true);
                }
                channels = wide;
            }
        }
        add("norm.weight".into(), &[channels], Init::Ones, false);
        add("norm.bias".into(), &[channels], Init::Zeros, false);
        let classes = self.images.classes as usize;
        add("head.fc.weight".into(), &[classes, channels], he(16 * channels, 1), false);
        add("head.fc.bias".into(), &[classes], Init::Zeros, false);
        all
    }

    /// The table as TOML, with what people need to know.
    pub(super) fn to_toml(&self) -> String {
        let Self { width, blocks, groups, images } = self;
        let count = super::count(&self.parameters());
        format!(
            "[model.resnet]          # {count} parameters\n\
             width = {width}              # channels of the first stage; each further one has twice as many\n\
             blocks = {blocks:?}         # of each stage\n\
             groups = {groups}              # of channels that are normalised together\n\n{}",
            images.to_toml("resnet.images")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::genesis::Genesis;

    #[test]
    fn presets_have_the_sizes_they_promise_and_read_back() {
        for (name, low, high) in
            [("digits", 18_000, 22_000), ("mnist", 250_000, 350_000), ("cifar", 2_500_000, 3_000_000)]
        {
            let genesis = Genesis::new("digits", Architecture::preset(name).unwrap(), 1);
            genesis.validate().unwrap();
            let count = genesis.model.parameter_count();
            assert!((low..high).contains(&count), "{name}: {count}");
            let text = genesis.to_toml();
            assert_eq!(Genesis::parse(&text).unwrap(), genesis, "{text}");
            assert_eq!(Genesis::from_canonical_bytes(&genesis.canonical_bytes()).unwrap(), genesis);
            assert_eq!(genesis.model.label(), name);
        }
    }

    #[test]
    fn a_swarm_that_names_its_classes_reads_back() {
        let mut config = ResnetConfig::preset("digits").unwrap();
        config.images.classes = 2;
        config.images.class_names = vec!["cat".into(), "a dog's".into()];
        let genesis = Genesis::new("animals", Architecture::Resnet(config), 1);
        let read = Genesis::parse(&genesis.to_toml()).unwrap();
        assert_eq!((&read, read.swarm_id()), (&genesis, genesis.swarm_id()));
        assert_eq!(read.model.label(), "resnet");
    }

    #[test]
    fn errors_name_the_key() {
        let digits = ResnetConfig::preset("digits").unwrap();
        for (config, words) in [
            (ResnetConfig { width: 0, ..digits.clone() }, "model.resnet.width = 0"),
            (ResnetConfig { groups: 5, ..digits.clone() }, "model.resnet.groups = 5"),
            (ResnetConfig { blocks: vec![], ..digits.clone() }, "model.resnet.blocks: 0 stages"),
            (ResnetConfig { blocks: vec![1, 0], ..digits.clone() }, "model.resnet.blocks = 0"),
            (ResnetConfig { blocks: vec![1; 5], ..digits.clone() }, "5 stages halve a side of 8"),
            (ResnetConfig { width: 2048, blocks: vec![64; 4], ..digits }, "parameters; at most"),
        ] {
            let error = Architecture::Resnet(config).validate().unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
