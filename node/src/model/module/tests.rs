//! Modules that PyTorch exported (`scripts/torchscript/export.py`): what is trained, and what is refused.

use super::*;
use std::fs;
use swarm_protocol::architecture::{Architecture, Images};

const VECTORS: Inputs = Inputs::Vectors { inputs: 3, outputs: 3 };

fn file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/module");
    fs::read(folder.join(name)).unwrap()
}

fn refused(bytes: &[u8], inputs: Inputs, loss: Loss) -> String {
    tch::set_num_threads(1);
    let error = format!("{:#}", describe(bytes, inputs, loss).unwrap_err());
    assert!(error.lines().count() == 1, "one sentence: {error}");
    error
}

fn images() -> Images {
    Images { channels: 1, height: 8, width: 8, classes: 10, class_names: Vec::new() }
}

#[test]
fn what_cannot_be_trained_is_refused_with_what_to_do() {
    let mlp = file("mlp.pt");
    for (bytes, words) in [
        (file("norm.pt"), "use group or layer normalisation"),
        (file("frozen.pt"), "no trainable parameters"),
        (file("double.pt"), "is Double: export the model with 32-bit parameters"),
        (b"not a module".to_vec(), "torch.jit.save"),
        (b"".to_vec(), "torch.jit.save"),
        (mlp[..mlp.len() / 2].to_vec(), "cannot be loaded as a TorchScript module"),
        (b"PK\x03\x04 and then nothing of the kind".to_vec(), "cannot be loaded as a TorchScript module"),
    ] {
        let error = refused(&bytes, VECTORS, Loss::Mse);
        assert!(error.contains(words), "{words}: {error}");
    }
    // A damaged middle, whatever it does, makes no panic.
    let mut damaged = mlp.clone();
    damaged[9000..9400].fill(0xFF);
    let _ = describe(&damaged, Inputs::Images(images()), Loss::CrossEntropy);
}

#[test]
fn a_description_that_does_not_fit_is_refused() {
    let mlp = file("mlp.pt");
    let wide = Images { width: 9, ..images() };
    let error = refused(&mlp, Inputs::Images(wide), Loss::CrossEntropy);
    assert!(error.contains("fails with inputs of shape [2, 1, 8, 9]"), "{error}");
    let eleven = Images { classes: 11, ..images() };
    let error = refused(&mlp, Inputs::Images(eleven), Loss::CrossEntropy);
    assert!(error.contains("makes [2, 10]") && error.contains("needs [2, 11]"), "{error}");
    let error = refused(&mlp, Inputs::Images(images()), Loss::Mse);
    assert!(error.contains("model.module.loss"), "{error}");
    let error = refused(&mlp, Inputs::Tokens { vocabulary: 256, context: 64 }, Loss::CrossEntropy);
    assert!(error.contains("fails with inputs of shape [2, 64]"), "{error}");
}

#[test]
fn only_the_very_file_is_taken() {
    let mlp = file("mlp.pt");
    let (config, _) = describe(&mlp, Inputs::Images(images()), Loss::CrossEntropy).unwrap();
    let mut other = mlp.clone();
    *other.last_mut().unwrap() ^= 1;
    let error = Module::new(&config, &other, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("is not the module that the genesis names"), "{error}");
    let mut wrong = config;
    wrong.parameters[0].name = "another".into();
    let error = Module::new(&wrong, &mlp, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("other parameters"), "{error}");
}

/// The gradient of weights that are used twice is that of both uses.
#[test]
fn tied_weights_are_one_parameter() {
    tch::set_num_threads(1);
    let bytes = file("tied.pt");
    let (config, values) = describe(&bytes, VECTORS, Loss::Mse).unwrap();
    assert_eq!(Architecture::Module(config.clone()).parameter_count(), 9, "{config:?}");
    let mut module = Module::new(&config, &bytes, Device::Cpu).unwrap();
    module.set_parameters(&values).unwrap();
    let inputs = Tensor::from_slice(&[0.5f32, -1.0, 0.3, 2.0, 0.1, -0.7]).view([2, 3]);
    let batch = Batch { targets: &inputs * 2.0, inputs };
    let (loss, gradient) = module.loss_and_gradient(&batch, None).unwrap();
    let weights = Tensor::from_slice(&values).view([3, 3]).set_requires_grad(true);
    let again = batch.inputs.linear(&weights, None::<&Tensor>).tanh().linear(&weights, None::<&Tensor>);
    let wanted_loss = again.mse_loss(&batch.targets, Reduction::Mean);
    let wanted = Tensor::run_backward(&[&wanted_loss], &[&weights], false, false).remove(0).view([9]);
    assert!((loss - wanted_loss.double_value(&[])).abs() < 1e-6);
    assert!((&gradient - &wanted).abs().max().double_value(&[]) < 1e-6, "{gradient} {wanted}");
    // The next one does not begin with what is left of this one.
    let (_, again) = module.loss_and_gradient(&batch, Some(gradient)).unwrap();
    assert!((again - wanted).abs().max().double_value(&[]) < 1e-6);
}
