//! Private parameters: those that every device trains for itself and nobody shares.
//!
//! They are named by patterns in which `*` stands for any number of characters, such as `*.norm*`. They keep their
//! place in the layout, so what is private never changes what C is made of; of the private ones of a genesis C stays
//! as it began. A device may keep more to itself than its genesis says: then it only listens to nobody there and says
//! nothing, and others do not notice.

use wildmatch::WildMatch;

use crate::architecture::Parameter;

/// Most patterns.
const MAX_PATTERNS: usize = 64;
/// Longest pattern, in bytes.
const MAX_LENGTH: usize = 256;

/// Parameters picked by the patterns of their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Private(Vec<WildMatch>);

impl Private {
    /// Those that any of `patterns` picks of `parameters`.
    ///
    /// # Errors
    /// A pattern that picks nothing, or all of them together pick everything; too many or too long ones.
    pub fn new(patterns: &[String], parameters: &[Parameter]) -> Result<Self, String> {
        if patterns.len() > MAX_PATTERNS {
            return Err(format!("{} patterns are more than {MAX_PATTERNS}", patterns.len()));
        }
        let mut all = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            if pattern.len() > MAX_LENGTH {
                return Err(format!("a pattern of {} bytes is longer than {MAX_LENGTH}", pattern.len()));
            }
            let matcher = WildMatch::new(pattern);
            if !parameters.iter().any(|parameter| matcher.matches(&parameter.name)) {
                let example = parameters.first().map_or("", |parameter| &parameter.name);
                return Err(format!(
                    "{pattern:?} picks no parameter; names are like {example:?}, and * stands for anything"
                ));
            }
            all.push(matcher);
        }
        let private = Self(all);
        if parameters.iter().all(|parameter| private.picks(&parameter.name)) {
            return Err("nothing would be left to share".into());
        }
        Ok(private)
    }

    /// Whether the parameter of this name is private.
    pub fn picks(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use crate::architecture::Architecture;
    use crate::genesis::Genesis;

    fn nano(private: &[&str]) -> Genesis {
        let mut genesis = Genesis::new("garden", Architecture::preset("nano").unwrap(), 5);
        genesis.private = private.iter().map(|&pattern| pattern.into()).collect();
        genesis
    }

    #[test]
    fn patterns_pick_by_name_and_are_part_of_the_swarm_id() {
        let genesis = nano(&["*.norm.*", "lm_head*", "*layernorm*"]);
        let read = Genesis::parse(&genesis.to_toml()).unwrap();
        assert_eq!((&read, read.swarm_id()), (&genesis, genesis.swarm_id()));
        assert_ne!(read.swarm_id(), nano(&[]).swarm_id());
        assert_eq!(Genesis::from_canonical_bytes(&genesis.canonical_bytes()).unwrap(), genesis);
        let (layout, open) = (genesis.layout().unwrap(), nano(&[]).layout().unwrap());
        assert_eq!((layout.tiles(), layout.parameters()), (open.tiles(), open.parameters()));
        for place in layout.parameters() {
            let expected = place.name.contains("norm") || place.name == "lm_head.weight";
            assert!(place.tiles.clone().all(|tile| layout.is_private(tile) == expected), "{}", place.name);
        }
    }

    #[test]
    fn errors_say_what_is_wrong_with_a_pattern() {
        for (patterns, words) in [
            (vec!["*.bias".to_owned()], "\"*.bias\" picks no parameter"),
            (vec!["*".to_owned()], "nothing would be left"),
            (vec!["model*".to_owned(), "lm_head*".to_owned()], "nothing would be left"),
            (vec!["*".to_owned(); 65], "65 patterns"),
            (vec!["*".repeat(257)], "257 bytes"),
        ] {
            let error = Genesis { private: patterns, ..nano(&[]) }.validate().unwrap_err();
            assert!(error.starts_with("private: ") && error.contains(words), "{error}");
        }
    }
}
