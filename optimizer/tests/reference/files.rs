//! Reading the files of a folder of recordings.

use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The file names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, String> {
    let fail = |why| format!("{}: cannot read the folder: {why}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        names.push(entry.map_err(fail)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The entries of `manifest.json` by file name; none if there is no manifest.
pub(crate) fn manifest(folder: &Path) -> Result<HashMap<String, Value>, String> {
    let path = folder.join("manifest.json");
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let text = std::fs::read_to_string(&path).map_err(|why| format!("manifest.json: {why}"))?;
    let manifest: Value = serde_json::from_str(&text).map_err(|why| format!("manifest.json: {why}"))?;
    let cases = manifest["cases"].as_array().ok_or("manifest.json: no list `cases`")?;
    let named = |case: &Value| Some((case["file"].as_str()?.to_owned(), case.clone()));
    Ok(cases.iter().filter_map(named).collect())
}

/// A safetensors file.
pub(crate) struct Archive<'a> {
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> Archive<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, String> {
        let fail = |why| format!("not a safetensors file: {why}");
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(fail)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(fail)?;
        Ok(Archive { tensors, metadata: metadata.metadata().clone().unwrap_or_default() })
    }

    /// The configuration of a recorded run: the file's own, what it lacks from the manifest. `None`
    /// for a file of transform vectors.
    pub(crate) fn config(&self, manifest: Option<&Value>) -> Result<Option<Value>, String> {
        let mut config = match self.metadata.get("config") {
            Some(text) => {
                serde_json::from_str(text).map_err(|why| format!("its `config` is not JSON: {why}"))?
            }
            None => Value::Object(Default::default()),
        };
        let object = config.as_object_mut().ok_or("its `config` is not a JSON object")?;
        for (key, value) in manifest.and_then(Value::as_object).into_iter().flatten() {
            object.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let is_run = object.contains_key("steps");
        Ok(is_run.then_some(config))
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names = self.tensors.names();
        names.sort();
        names
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.names().contains(&name)
    }

    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>, String> {
        Ok(self.tensors.tensor(name).map_err(|why| why.to_string())?.shape().to_vec())
    }

    pub(crate) fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        self.read(name, shape, Dtype::F32, f32::from_le_bytes)
    }

    pub(crate) fn f64(&self, name: &str, shape: &[usize]) -> Result<Vec<f64>, String> {
        self.read(name, shape, Dtype::F64, f64::from_le_bytes)
    }

    pub(crate) fn i32(&self, name: &str, shape: &[usize]) -> Result<Vec<i32>, String> {
        self.read(name, shape, Dtype::I32, i32::from_le_bytes)
    }

    fn read<T, const N: usize>(
        &self,
        name: &str,
        shape: &[usize],
        dtype: Dtype,
        decode: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, String> {
        let view = self.tensors.tensor(name).map_err(|why| why.to_string())?;
        if view.dtype() != dtype || view.shape() != shape {
            let (got, is) = (view.dtype(), view.shape());
            return Err(format!("{name} is {got:?} {is:?}, expected {dtype:?} {shape:?}"));
        }
        Ok(view.data().as_chunks::<N>().0.iter().map(|bytes| decode(*bytes)).collect())
    }
}
