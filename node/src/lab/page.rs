//! The page of curves: one file that needs nothing else, with the numbers inside it.

use anyhow::Result;
use serde::Serialize;

use super::record::{Point, RunResult, Summary};

const TEMPLATE: &str = include_str!("page.html");
/// Where the template wants the numbers.
const PLACE: &str = "/*DATA*/null";

#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    summaries: &'a [Summary],
    runs: Vec<Curve<'a>>,
}

#[derive(Serialize)]
struct Curve<'a> {
    name: &'a str,
    seed: u64,
    points: &'a [Point],
}

/// The page as HTML.
///
/// # Errors
/// None that depend on the results.
pub(crate) fn render(title: &str, summaries: &[Summary], results: &[RunResult]) -> Result<String> {
    let curve = |run: &RunResult| (run.name.clone(), run.settings.seed, run.curve.clone());
    let curves: Vec<_> = results.iter().map(curve).collect();
    let runs = curves.iter().map(|(name, seed, points)| Curve { name, seed: *seed, points }).collect();
    let title = if title.is_empty() { "swarm lab" } else { title };
    // "</script>" in a name must not end the script.
    let json = serde_json::to_string(&Page { title, summaries, runs })?.replace('<', "\\u003c");
    Ok(TEMPLATE.replacen(PLACE, &json, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_script() {
        let page = render("</script><b>", &[], &[]).unwrap();
        assert!(!page.contains("</script><b>") && !page.contains(PLACE));
        assert!(page.contains("\\u003c/script>"));
    }
}
