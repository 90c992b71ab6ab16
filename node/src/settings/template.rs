//! A file of settings to begin with: every flag, with its help.

use std::fmt::Write;

use clap::{Arg, ArgAction};

/// Columns of a comment.
const WIDTH: usize = 96;

/// A file in which everything is a comment but for `set`.
pub(crate) fn template(flags: &[Arg], set: &[(&str, String)]) -> String {
    let mut text = String::from(
        "# Settings of a swarm node: the keys are the flags of swarm run, without the dashes.\n\
         # A flag that is given wins over the environment (SWARM_ and the name in capitals), and that over this file.\n\
         # Those on when and how hard to train take effect a second after this file is saved; the others when the\n\
         # node is next started. swarm config check reads it without starting anything.\n",
    );
    let mut heading = None;
    for flag in flags.iter().filter(|flag| !flag.is_hide_set()) {
        let Some(name) = flag.get_long().filter(|name| !["config", "help", "as-service"].contains(name))
        else {
            continue;
        };
        if heading != flag.get_help_heading() {
            heading = flag.get_help_heading();
            let _ = writeln!(text, "\n# == {} ==", heading.unwrap_or("Other"));
        }
        text.push('\n');
        let help = flag.get_long_help().or_else(|| flag.get_help());
        for line in help.map(|help| wrapped(&help.to_string())).unwrap_or_default() {
            let _ = writeln!(text, "# {line}");
        }
        let _ = match set.iter().find(|(key, _)| *key == name) {
            Some((_, value)) => writeln!(text, "{name} = {value}"),
            None => writeln!(text, "# {name} = {}", example(flag)),
        };
    }
    text
}

/// A value of the flag's kind: its default, or a word for it.
fn example(flag: &Arg) -> String {
    if matches!(flag.get_action(), ArgAction::SetTrue) {
        return "true".to_owned();
    }
    let default = flag.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let choices = flag.get_possible_values();
    let choice = choices.first().map(|choice| choice.get_name().to_owned());
    let word = flag.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let value = default.or(choice).or(word).unwrap_or_default();
    let value = if value.parse::<f64>().is_ok() { value } else { format!("\"{value}\"") };
    if matches!(flag.get_action(), ArgAction::Append) { format!("[{value}]") } else { value }
}

/// Lines of at most [`WIDTH`] columns.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}
