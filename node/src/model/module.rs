//! TorchScript modules: whatever PyTorch exports with `torch.jit.save`, trained as any other model.
//!
//! PyTorch calls TorchScript deprecated; it is still the one way to bring an arbitrary model, its forward pass
//! included, into a program without Python.
//!
//! # One flat vector
//! The module has variables of its own. They are made views of the flat vector (`set_data`), once: what the optimizer
//! or a fold writes there, the module computes with, and nothing is copied. Gradients arrive at the variables and are
//! gathered. Variables that share memory (tied weights) are one parameter, whose gradient is the sum of theirs.
//!
//! # What cannot be trained
//! Nothing but parameters is shared. A module that keeps other numbers which training changes, such as the running
//! statistics of batch normalisation, would be another one on every device: it is found out by running it once and
//! comparing what it would save before and after, and refused.

use std::cell::RefCell;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use swarm_protocol::architecture::{Inputs, Loss, ModuleConfig, ModuleParameter, Parameter};
use swarm_protocol::digest::Digest;
use tch::{CModule, Device, Kind, Reduction, TchError, Tensor};

use super::network::{self, Batch, Network, copy_out_of, parameter_length};

#[cfg(test)]
mod tests;

/// `ignore_index` of libtorch's cross entropy: its default, which no class has.
const NO_IGNORED_TARGET: i64 = -100;
/// How to make one, for errors.
const EXPORT: &str = "export it with torch.jit.save(torch.jit.script(model), FILE)";

/// A module in training.
#[derive(Debug)]
pub(crate) struct Module {
    config: ModuleConfig,
    layout: Vec<Parameter>,
    device: Device,
    /// Training and evaluation are modes of it.
    module: RefCell<CModule>,
    /// The parameters, f32 `[parameter_count]`.
    flat: Tensor,
    variables: Vec<Variable>,
}

/// A variable of the module, and where it lies in the flat vector.
#[derive(Debug)]
struct Variable {
    start: i64,
    length: i64,
    tensor: Tensor,
}

/// What a module's file holds.
struct Loaded {
    module: CModule,
    /// The trainable parameters; tied ones once.
    parameters: Vec<(ModuleParameter, Tensor)>,
    /// Further names of a parameter, by its number.
    tied: Vec<(usize, Tensor)>,
}

/// Reads a module's file.
fn load(bytes: &[u8], device: Device) -> Result<Loaded> {
    ensure!(bytes.starts_with(b"PK"), "it is no TorchScript module: {EXPORT}");
    let module = CModule::load_data_on_device(&mut Cursor::new(bytes), device).map_err(|error| {
        anyhow!("it cannot be loaded as a TorchScript module ({}): {EXPORT}", short(&error))
    })?;
    let (mut parameters, mut tied) = (Vec::<(ModuleParameter, Tensor)>::new(), Vec::new());
    for (name, tensor) in module.named_parameters()? {
        if !tensor.requires_grad() {
            continue;
        }
        let kind = tensor.f_kind()?;
        ensure!(
            kind == Kind::Float,
            "its parameter {name} is {kind:?}: export the model with 32-bit parameters (model.float())"
        );
        let place = tensor.data_ptr();
        if let Some(first) = parameters.iter().position(|(_, other)| other.data_ptr() == place) {
            ensure!(
                parameters[first].1.size() == tensor.size(),
                "its parameters {name} and {} share memory but not their shape: make them two",
                parameters[first].0.name
            );
            tied.push((first, tensor));
            continue;
        }
        let side = |side: &i64| u32::try_from(*side).ok();
        let shape = tensor.size().iter().map(side).collect::<Option<Vec<u32>>>();
        let shape = shape.with_context(|| format!("its parameter {name} is too large"))?;
        parameters.push((ModuleParameter { name, shape }, tensor));
    }
    ensure!(
        !parameters.is_empty(),
        "it has no trainable parameters: export a model whose parameters require gradients, and do not freeze it"
    );
    Ok(Loaded { module, parameters, tied })
}

/// The first line of what libtorch says: the rest is its stack.
fn short(error: &TchError) -> String {
    const LONGEST: usize = 200;
    let text = error.to_string();
    // Errors of the module's own code begin with a traceback and end with the reason.
    let reason = text.lines().rev().find(|line| line.trim_start().starts_with("RuntimeError:"));
    let line = reason.or_else(|| text.lines().find(|line| !line.trim().is_empty())).unwrap_or_default();
    line.trim().chars().take(LONGEST).collect()
}

/// The architecture of the module in `bytes`, and the values of its parameters in layout order.
///
/// # Errors
/// A file that is no module, or one that cannot be trained like this; the text says what to do.
pub(crate) fn describe(bytes: &[u8], inputs: Inputs, loss: Loss) -> Result<(ModuleConfig, Vec<f32>)> {
    ModuleConfig::validate_inputs(&inputs, loss).map_err(anyhow::Error::msg)?;
    let Loaded { mut module, parameters, .. } = load(bytes, Device::Cpu)?;
    let file = Digest::of_bytes(bytes);
    let mut values = Vec::new();
    for (parameter, tensor) in &parameters {
        let from = values.len();
        values.resize(from + tensor.numel(), 0.0);
        let flat = tensor.f_detach()?.f_contiguous()?.f_view([-1])?;
        copy_out_of(&flat, &mut values[from..])?;
        ensure!(
            values[from..].iter().all(|value| value.is_finite()),
            "its parameter {} has values that are not finite",
            parameter.name
        );
    }
    let parameters = parameters.into_iter().map(|(parameter, _)| parameter).collect();
    let config = ModuleConfig { file, loss, inputs, parameters };
    try_out(&mut module, &config, Device::Cpu)?;
    Ok((config, values))
}

/// Runs the module once as in training: does it take what `inputs` says and give what the loss needs, and does it keep
/// nothing but its parameters?
fn try_out(module: &mut CModule, config: &ModuleConfig, device: Device) -> Result<()> {
    const EXAMPLES: i64 = 2;
    let (size, kind, wanted) = match &config.inputs {
        Inputs::Tokens { vocabulary, context } => {
            let (context, vocabulary) = (i64::from(*context), i64::from(*vocabulary));
            (vec![EXAMPLES, context], Kind::Int64, vec![EXAMPLES, context, vocabulary])
        }
        Inputs::Images(images) => {
            let [channels, height, width, classes] =
                [images.channels, images.height, images.width, images.classes].map(i64::from);
            (vec![EXAMPLES, channels, height, width], Kind::Float, vec![EXAMPLES, classes])
        }
        Inputs::Vectors { inputs, outputs } => {
            (vec![EXAMPLES, i64::from(*inputs)], Kind::Float, vec![EXAMPLES, i64::from(*outputs)])
        }
    };
    let example = Tensor::f_zeros(&size[..], (kind, device))?;
    module.f_set_train()?;
    tch::jit::f_set_graph_executor_optimize(false)?;
    let folder = tempfile::tempdir().context("no temporary folder to try the module out in")?;
    // The archive within has the file's name: the same for both.
    let path = folder.path().join("module.pt");
    let before = saved(module, &path)?;
    let given = tch::no_grad(|| module.forward_ts(&[example]))
        .map_err(|error| anyhow!("it fails with inputs of shape {size:?} ({kind:?}): {}", short(&error)))?;
    ensure!(
        given.size() == wanted,
        "it makes {:?} of inputs of shape {size:?}, but {} needs {wanted:?}: correct the description or the model",
        given.size(),
        config.loss.name()
    );
    ensure!(
        saved(module, &path)? == before,
        "training changes more of it than its parameters, such as the running statistics of batch normalisation, which \
         would differ on every device: use group or layer normalisation (or BatchNorm with \
         track_running_stats=False), and export it again"
    );
    Ok(())
}

/// What the module saves.
fn saved(module: &CModule, path: &Path) -> Result<Digest> {
    module.save(path)?;
    Ok(Digest::of_bytes(&std::fs::read(path)?))
}

impl Module {
    /// The module in `bytes` on `device`. All parameters are zero until [`Network::set_parameters`].
    ///
    /// # Errors
    /// Another file than the genesis names; not enough memory on the device.
    pub(crate) fn new(config: &ModuleConfig, bytes: &[u8], device: Device) -> Result<Self> {
        let digest = Digest::of_bytes(bytes);
        ensure!(
            digest == config.file,
            "this is not the module that the genesis names: its BLAKE3 is {digest:.16}..., but model.module.file is \
             {:.16}...; ask whoever made the swarm for the file",
            config.file
        );
        let Loaded { mut module, parameters, tied } = load(bytes, device)?;
        let names = parameters.iter().map(|(parameter, _)| parameter);
        ensure!(
            names.eq(&config.parameters),
            "the genesis names other parameters than this module has: take the genesis from whoever made the swarm"
        );
        try_out(&mut module, config, device)?;
        let layout = config.parameters();
        let count: usize = layout.iter().map(parameter_length).sum();
        let flat = Tensor::f_zeros([count as i64], (Kind::Float, device))
            .with_context(|| format!("cannot place {count} parameters on {device:?}"))?;
        let (mut variables, mut start) = (Vec::new(), 0);
        for (_, tensor) in parameters {
            let length = tensor.numel() as i64;
            variables.push(Variable { start, length, tensor });
            start += length;
        }
        for (first, tensor) in tied {
            let Variable { start, length, .. } = variables[first];
            variables.push(Variable { start, length, tensor });
        }
        for Variable { start, length, tensor } in &mut variables {
            let view = flat.f_narrow(0, *start, *length)?.f_view(&tensor.size()[..])?;
            tensor.f_set_data(&view)?;
        }
        Ok(Self { config: config.clone(), layout, device, module: RefCell::new(module), flat, variables })
    }

    /// What the module makes of the batch's inputs: of tokens and classes, logits `[targets, classes]`.
    fn outputs(&self, batch: &Batch, train: bool) -> Result<Tensor> {
        let mut module = self.module.try_borrow_mut().context("the module is running already")?;
        if train {
            module.f_set_train()?;
        } else {
            module.f_set_eval()?;
        }
        // As in eager PyTorch: nothing is fused or specialised to the first batch's size. A thread's own setting.
        tch::jit::f_set_graph_executor_optimize(false)?;
        let outputs = module
            .forward_ts(&[&batch.inputs])
            .map_err(|error| anyhow!("the module fails on a batch: {}", short(&error)))?;
        let outputs = outputs.f_to_kind(Kind::Float)?;
        Ok(match &self.config.inputs {
            Inputs::Tokens { vocabulary, .. } => outputs.f_reshape([-1, i64::from(*vocabulary)])?,
            Inputs::Images(_) | Inputs::Vectors { .. } => outputs,
        })
    }

    fn loss_in(&self, batch: &Batch, train: bool) -> Result<Tensor> {
        let outputs = self.outputs(batch, train)?;
        let loss = match self.config.loss {
            Loss::CrossEntropy => outputs.f_cross_entropy_loss(
                &batch.targets.f_reshape([-1])?,
                None::<&Tensor>,
                Reduction::Mean,
                NO_IGNORED_TARGET,
                0.0,
            )?,
            Loss::Mse => outputs.f_mse_loss(&batch.targets, Reduction::Mean)?,
        };
        Ok(loss)
    }
}

impl Network for Module {
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
        self.loss_in(batch, false)
    }

    fn loss_and_gradient(&self, batch: &Batch, spare: Option<Tensor>) -> Result<(f64, Tensor)> {
        let loss = self.loss_in(batch, true)?;
        if !loss.requires_grad() {
            bail!("the module's output does not depend on its parameters: there is nothing to learn");
        }
        loss.f_backward()?;
        let mut gradient = match spare {
            Some(spare) => spare,
            None => self.flat.f_zeros_like()?,
        };
        let _ = gradient.f_zero_()?;
        for Variable { start, length, tensor } in &self.variables {
            let mut here = tensor.f_grad()?;
            // A parameter that the output does not depend on has none.
            if here.defined() {
                let _ = gradient.f_narrow(0, *start, *length)?.f_add_(&here.f_reshape([-1])?)?;
                let _ = here.f_zero_()?;
            }
        }
        Ok((loss.f_double_value(&[])?, gradient))
    }

    fn hits(&self, batch: &Batch) -> Result<Option<f64>> {
        match (&self.config.inputs, self.config.loss) {
            (Inputs::Tokens { .. }, _) | (_, Loss::Mse) => Ok(None),
            _ => network::hits(&self.outputs(batch, false)?, &batch.targets).map(Some),
        }
    }
}
