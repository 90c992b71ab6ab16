//! What the pictures are that a swarm learns to tell apart: all of its devices must mean the same by them.

use serde::{Deserialize, Serialize};

use super::within;

/// Upper limits: what a genesis may ask a device to allocate.
const MAX_SIDE: u32 = 4096;
const MAX_CLASSES: u32 = 1 << 16;
const MAX_NAME: usize = 64;

/// Pictures of one size, and their classes. In a genesis the table `images` of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    /// 1 for grey, 3 for red, green and blue.
    pub channels: u32,
    /// Rows of pixels.
    pub height: u32,
    /// Pixels of a row.
    pub width: u32,
    /// Number of classes.
    pub classes: u32,
    /// Their names, the one of class 0 first; none if they are called by their numbers.
    #[serde(default)]
    pub class_names: Vec<String>,
}

impl Images {
    /// Numbers (pixels times channels) of a picture.
    pub fn numbers(&self) -> usize {
        self.channels as usize * self.height as usize * self.width as usize
    }

    /// What the class number `class` is called.
    pub fn class_name(&self, class: u32) -> String {
        self.class_names.get(class as usize).cloned().unwrap_or_else(|| class.to_string())
    }

    /// The class that `label` names: one of the names, or else its number.
    pub fn class(&self, label: &str) -> Option<u32> {
        let named = self.class_names.iter().position(|name| name == label);
        let number = || label.parse().ok().filter(|number| *number < self.classes);
        named.and_then(|at| u32::try_from(at).ok()).or_else(number)
    }

    /// Which labels there are, in words.
    pub fn labels(&self) -> String {
        const SHOWN: usize = 12;
        match self.class_names.len() {
            0 => format!("0 to {}", self.classes.saturating_sub(1)),
            all if all <= SHOWN => self.class_names.join(", "),
            all => format!("{} and {} more", self.class_names[..SHOWN].join(", "), all - SHOWN),
        }
    }

    /// Checks every value; the error names the key below `model.<at>`.
    pub(super) fn validate(&self, at: &str) -> Result<(), String> {
        let key = |key: &str| format!("{at}.{key}");
        if ![1, 3].contains(&self.channels) {
            return Err(format!(
                "model.{} = {}: must be 1 (grey) or 3 (red, green, blue)",
                key("channels"),
                self.channels
            ));
        }
        within(&key("height"), self.height, 1, MAX_SIDE)?;
        within(&key("width"), self.width, 1, MAX_SIDE)?;
        within(&key("classes"), self.classes, 2, MAX_CLASSES)?;
        let names = &self.class_names;
        if names.is_empty() {
            return Ok(());
        }
        if names.len() != self.classes as usize {
            return Err(format!(
                "model.{}: {} names for {} classes; give every class a name, or none",
                key("class_names"),
                names.len(),
                self.classes
            ));
        }
        for (at, name) in names.iter().enumerate() {
            let plain = |c: char| !c.is_control() && !"/\\,\"".contains(c);
            if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.chars().all(plain) {
                return Err(format!(
                    "model.{}: {name:?} is no name for a class: 1 to {MAX_NAME} bytes, without / \\ , \" and control \
                     characters, not beginning with a point",
                    key("class_names")
                ));
            }
            // A label that is a number would otherwise mean two classes.
            if name.parse::<u32>().is_ok_and(|number| number as usize != at) {
                return Err(format!(
                    "model.{}: class {at} is called {name}, which is the number of another class",
                    key("class_names")
                ));
            }
        }
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                Err(format!("model.{}: {} is the name of two classes", key("class_names"), pair[0]))
            }
            None => Ok(()),
        }
    }

    /// The table `[model.<at>]` as TOML.
    pub(super) fn to_toml(&self, at: &str) -> String {
        let Self { channels, height, width, classes, class_names } = self;
        let mut text = format!(
            "[model.{at}]\n\
             channels = {channels}            # 1: grey, 3: red, green, blue\n\
             height = {height}\nwidth = {width}\nclasses = {classes}\n"
        );
        if !class_names.is_empty() {
            let names: Vec<String> =
                class_names.iter().map(|name| toml::Value::String(name.clone()).to_string()).collect();
            text += &format!("class_names = [{}]\n", names.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn animals() -> Images {
        let class_names = ["cat", "dog", "2"].map(str::to_owned).to_vec();
        Images { channels: 3, height: 32, width: 48, classes: 3, class_names }
    }

    #[test]
    fn a_label_is_a_name_or_a_number() {
        let animals = animals();
        animals.validate("images").unwrap();
        for (label, class) in
            [("cat", Some(0)), ("dog", Some(1)), ("1", Some(1)), ("2", Some(2)), ("3", None), ("Cat", None)]
        {
            assert_eq!(animals.class(label), class, "{label}");
        }
        assert_eq!((animals.class_name(1), animals.labels()), ("dog".into(), "cat, dog, 2".into()));
        let numbered = Images { class_names: Vec::new(), ..animals };
        assert_eq!((numbered.class_name(1), numbered.labels()), ("1".into(), "0 to 2".into()));
    }

    #[test]
    fn errors_name_the_key() {
        let named = |names: &[&str]| {
            let class_names = names.iter().map(|name| (*name).to_owned()).collect();
            Images { class_names, ..animals() }
        };
        for (images, words) in [
            (Images { channels: 2, ..animals() }, "model.images.channels = 2"),
            (Images { height: 0, ..animals() }, "model.images.height = 0"),
            (Images { width: 5000, ..animals() }, "model.images.width = 5000"),
            (Images { classes: 1, ..animals() }, "model.images.classes = 1"),
            (named(&["cat", "dog"]), "2 names for 3 classes"),
            (named(&["cat", "dog", "dog"]), "dog is the name of two classes"),
            (named(&["cat", "dog", "a/b"]), "\"a/b\" is no name"),
            (named(&["cat", "dog", "0"]), "class 2 is called 0"),
        ] {
            let error = images.validate("images").unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
