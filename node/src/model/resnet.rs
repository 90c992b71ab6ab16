//! The residual network for pictures; [`ResnetConfig`] says what it is. Autograd supplies the backward pass.
//!
//! Activations are `[batch, channels, height, width]`. In the flat vector a convolution's weight is a matrix of
//! `[out, in * 3 * 3]`; here it is seen with its four dimensions, which costs nothing.

use anyhow::{Context, Result, ensure};
use swarm_protocol::architecture::{Architecture, Parameter, ResnetConfig};
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::Precision;
use super::network::{self, Batch, Network, parameter_length};

/// Added to the variance in a normalisation.
const NORM_EPS: f64 = 1e-5;
/// `ignore_index` of libtorch's cross entropy: its default, which no class has.
const NO_IGNORED_TARGET: i64 = -100;

/// A residual network.
#[derive(Debug)]
pub(crate) struct Resnet {
    config: ResnetConfig,
    layout: Vec<Parameter>,
    device: Device,
    /// Number format of convolutions.
    compute: Kind,
    /// The parameters, f32 `[parameter_count]`, a leaf that requires a gradient.
    flat: Tensor,
    /// Length of each parameter.
    runs: Vec<i64>,
}

/// The parameters as views of the flat vector, in the order in which the network uses them: its layout's.
struct Weights(std::vec::IntoIter<Tensor>);

impl Weights {
    fn next(&mut self) -> Result<Tensor> {
        self.0.next().context("the layout and the network disagree")
    }
}

impl Resnet {
    /// Allocates the model on `device`. All parameters are zero until [`Network::set_parameters`].
    ///
    /// # Errors
    /// An architecture that is invalid; not enough memory on the device.
    pub(crate) fn new(config: &ResnetConfig, device: Device, precision: Precision) -> Result<Self> {
        let architecture = Architecture::Resnet(config.clone());
        architecture.validate().map_err(anyhow::Error::msg)?;
        let layout = architecture.parameters();
        let runs: Vec<i64> = layout.iter().map(|parameter| parameter_length(parameter) as i64).collect();
        let count = architecture.parameter_count();
        let flat = network::zeros(&layout, device)
            .with_context(|| format!("cannot place {count} parameters on {device:?}"))?;
        Ok(Self { config: config.clone(), layout, device, compute: precision.kind(), flat, runs })
    }

    /// Unnormalised log probabilities of the classes: f32 `[batch, channels, height, width]` in, `[batch, classes]`
    /// out.
    ///
    /// # Errors
    /// Pictures of another size; not enough memory.
    pub(crate) fn logits(&self, pictures: &Tensor) -> Result<Tensor> {
        let images = &self.config.images;
        let wanted = [images.channels, images.height, images.width].map(i64::from);
        let size = pictures.size();
        ensure!(
            size.len() == 4 && size[1..] == wanted,
            "pictures of shape {:?} were given to a network for {wanted:?} (channels, height, width)",
            size.get(1..).unwrap_or_default()
        );
        let mut weights = Weights(self.flat.f_split_with_sizes(&self.runs, 0)?.into_iter());
        let mut x = self.convolve(pictures, &weights.next()?, 3, 1)?;
        for (stage, blocks) in self.config.blocks.iter().enumerate() {
            let wide = i64::from(self.config.width) << stage;
            for block in 0..*blocks {
                let (narrow, stride) = (x.size()[1], if stage > 0 && block == 0 { 2 } else { 1 });
                let normal = self.normalise(&x, &mut weights)?;
                let inside = self.convolve(&normal, &weights.next()?, 3, stride)?;
                let inside = self.normalise(&inside, &mut weights)?;
                let inside = self.convolve(&inside, &weights.next()?, 3, 1)?;
                let around =
                    if narrow == wide { x } else { self.convolve(&normal, &weights.next()?, 1, stride)? };
                x = around.f_add(&inside)?;
            }
        }
        let x = self.normalise(&x, &mut weights)?;
        let pooled = x.f_mean_dim(&[2i64, 3][..], false, Kind::Float)?;
        let (head, bias) = (weights.next()?, weights.next()?);
        Ok(pooled.f_linear(&head.f_view([i64::from(images.classes), -1])?, Some(&bias))?)
    }

    /// ReLU of `x`, normalised in groups of channels.
    fn normalise(&self, x: &Tensor, weights: &mut Weights) -> Result<Tensor> {
        let (gain, bias) = (weights.next()?, weights.next()?);
        let groups = self.config.groups.into();
        Ok(x.f_group_norm(groups, Some(&gain), Some(&bias), NORM_EPS, false)?.f_relu()?)
    }

    /// A convolution with filters of `side` x `side` that lie in `weight` one behind the other.
    fn convolve(&self, x: &Tensor, weight: &Tensor, side: i64, stride: i64) -> Result<Tensor, TchError> {
        let filters = weight.f_view([-1, x.size()[1], side, side])?.f_to_kind(self.compute)?;
        let around = side / 2;
        x.f_to_kind(self.compute)?
            .f_conv2d(&filters, None::<&Tensor>, [stride; 2], [around; 2], [1; 2], 1)?
            .f_to_kind(Kind::Float)
    }
}

impl Network for Resnet {
    fn layout(&self) -> &[Parameter] {
        &self.layout
    }

    fn device(&self) -> Device {
        self.device
    }

    fn flat(&self) -> &Tensor {
        &self.flat
    }

    fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let logits = self.logits(&batch.inputs)?;
        Ok(logits.f_cross_entropy_loss(
            &batch.targets,
            None::<&Tensor>,
            Reduction::Mean,
            NO_IGNORED_TARGET,
            0.0,
        )?)
    }

    fn hits(&self, batch: &Batch) -> Result<Option<f64>> {
        network::hits(&self.logits(&batch.inputs)?, &batch.targets).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Resnet {
        tch::set_num_threads(1);
        let config = ResnetConfig::preset("digits").unwrap();
        let mut network = Resnet::new(&config, Device::Cpu, Precision::F32).unwrap();
        let count = network.parameter_count();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin() * 0.2).collect();
        network.set_parameters(&values).unwrap();
        network
    }

    fn pictures(count: i64) -> Batch {
        let pixels: Vec<f32> = (0..count * 64).map(|i| ((i * i) as f32 * 0.01).sin()).collect();
        let classes: Vec<i64> = (0..count).map(|i| i % 10).collect();
        let inputs = Tensor::from_slice(&pixels).view([count, 1, 8, 8]);
        Batch { inputs, targets: Tensor::from_slice(&classes) }
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let mut network = network();
        let batch = pictures(3);
        let (_, gradient) = network.loss_and_gradient(&batch, None).unwrap();
        let mut values = vec![0.0; network.parameter_count()];
        network.read_parameters(&mut values).unwrap();
        let mut start = 0;
        for parameter in network.layout().to_vec() {
            // One scalar of every parameter: a finite difference of central values.
            let at = start + parameter_length(&parameter) / 2;
            let step = 1e-2;
            let mut loss_at = |offset: f32| {
                let mut moved = values.clone();
                moved[at] += offset;
                network.set_parameters(&moved).unwrap();
                network.loss(&batch).unwrap().double_value(&[])
            };
            let slope = (loss_at(step) - loss_at(-step)) / f64::from(2.0 * step);
            let got = gradient.double_value(&[at as i64]);
            assert!((slope - got).abs() < 2e-3 + 0.05 * slope.abs(), "{}: {slope} {got}", parameter.name);
            start += parameter_length(&parameter);
        }
        assert!(gradient.abs().sum(Kind::Float).double_value(&[]) > 0.1);
    }

    #[test]
    fn pictures_do_not_influence_each_other() {
        let network = network();
        let all = pictures(5);
        let together = network.logits(&all.inputs).unwrap();
        let alone = network.logits(&all.inputs.narrow(0, 3, 1)).unwrap();
        let difference = (together.narrow(0, 3, 1) - alone).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{difference}");
        assert_eq!(together.size(), [5, 10]);
    }

    #[test]
    fn hits_are_the_pictures_whose_class_is_the_likeliest() {
        let network = network();
        let mut batch = pictures(6);
        let likeliest = network.logits(&batch.inputs).unwrap().argmax(1, false);
        batch.targets = likeliest.shallow_clone();
        assert_eq!(network.hits(&batch).unwrap(), Some(6.0));
        batch.targets = (likeliest + 1).remainder(10);
        assert_eq!(network.hits(&batch).unwrap(), Some(0.0));
    }

    #[test]
    fn pictures_of_another_size_are_refused() {
        let network = network();
        for shape in [vec![2, 3, 8, 8], vec![2, 1, 8, 9], vec![64]] {
            let pictures = Tensor::zeros(&shape[..], (Kind::Float, Device::Cpu));
            let error = network.logits(&pictures).unwrap_err().to_string();
            assert!(error.contains("[1, 8, 8]"), "{error}");
        }
    }
}
