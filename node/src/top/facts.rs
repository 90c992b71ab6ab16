//! The lines that are always there: the node, its round, loss, device, model, traffic.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::look::Look;
use super::text::{bytes, columns, count, fit, loss, span};
use super::view::{Flow, Running, View};

/// How many lines these are.
pub(super) const FACTS: u16 = 8;
/// Columns of a line's name.
const LABEL: usize = 9;
/// Columns of a bar.
const BAR: usize = 20;

/// What a word means, for its colour; bold where it matters, so that it is seen without colours, too.
#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Good,
    Slow,
    Bad,
}

impl Tone {
    fn style(self, look: Look) -> Style {
        let (colour, modifier) = match self {
            Self::Plain => (None, Modifier::empty()),
            Self::Good => (Some(Color::Green), Modifier::empty()),
            Self::Slow => (Some(Color::Yellow), Modifier::BOLD),
            Self::Bad => (Some(Color::Red), Modifier::BOLD),
        };
        let style = Style::new().add_modifier(modifier);
        colour.filter(|_| look.colour).map_or(style, |colour| style.fg(colour))
    }
}

/// All of them, `width` columns wide.
pub(super) fn facts(view: &View, look: Look, width: usize) -> Vec<Line<'static>> {
    let room = width.saturating_sub(LABEL);
    let line = |label: &str, words: String, tone: Tone| {
        let label = Span::styled(format!("{label:<LABEL$}"), Style::new().add_modifier(Modifier::BOLD));
        Line::from(vec![label, Span::styled(words, tone.style(look))])
    };
    let (same, tone) = model(view, room);
    let device = match &view.guest {
        _ if view.running == Running::Never => "-".to_owned(),
        Some(guest) if view.running == Running::Yes => guest.words.clone(),
        Some(guest) => format!("{}, when it last ran", guest.words),
        None => "holds and passes on, and does not train".to_owned(),
    };
    let held = match view.running {
        Running::Yes if view.is_held() => Tone::Slow,
        Running::Yes => Tone::Good,
        _ => Tone::Plain,
    };
    vec![
        head(view, look, width),
        line("round", round(view, room), Tone::Plain),
        line("loss", losses(view, room), Tone::Plain),
        line("device", device, held),
        line("model", same, tone),
        line("sent", flow(&view.sent, room), Tone::Plain),
        line("received", flow(&view.received, room), Tone::Plain),
        line("delta", delta(view, room), Tone::Plain),
    ]
}

/// What node it is, and what it is doing.
fn head(view: &View, look: Look, width: usize) -> Line<'static> {
    let (state, tone) = match view.running {
        Running::Never => ("no node has run here yet; waiting".to_owned(), Tone::Slow),
        Running::Not(_) if view.trouble.is_some() => {
            ("its status cannot be read; waiting".to_owned(), Tone::Bad)
        }
        Running::Not(seconds) => (format!("does not run since {}; waiting", span(seconds)), Tone::Bad),
        Running::Yes if view.is_held() => (view.phase.clone(), Tone::Slow),
        Running::Yes => (view.phase.clone(), Tone::Good),
    };
    // The detail of a pause is the governor's word, which has a line of its own.
    let detail = match view.running {
        Running::Yes if view.phase != "paused" && !view.detail.is_empty() => {
            format!("{state}: {}", view.detail)
        }
        Running::Not(_) if view.trouble.is_none() && !view.phase.is_empty() => {
            format!("{state}; it was last {}", view.phase)
        }
        _ => state.clone(),
    };
    let name = if view.name.is_empty() { "swarm".to_owned() } else { view.name.clone() };
    let parameters = view.parameters.map(|number| format!("{} parameters", count(number)));
    let model = Some(view.model.clone()).filter(|model| !model.is_empty());
    let id = Some(view.peer_id.clone()).filter(|id| !id.is_empty()).map(|id| super::text::ends(&id, 4, 6));
    // What it does goes before what it is.
    let state = if columns(&detail) + columns(&name) + 3 <= width { detail } else { state };
    let room = width.saturating_sub(columns(&state) + 2);
    let about = fit([Some(name), model, parameters, id].into_iter().flatten(), ", ", room);
    let about: String = about.chars().take(room).collect();
    let gap = " ".repeat(width.saturating_sub(columns(&about) + columns(&state)));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Line::from(vec![
        Span::styled(about, bold),
        gap.into(),
        Span::styled(state, tone.style(look).add_modifier(Modifier::BOLD)),
    ])
}

fn round(view: &View, room: usize) -> String {
    let pace = view.past.pace().map(|seconds| {
        if seconds < 10.0 { format!("{seconds:.1} s a round") } else { format!("{} a round", span(seconds)) }
    });
    let speed = view.tokens_per_second.map(|speed| format!("{} tokens/s", count(speed.min(1e18) as u64)));
    let left = view.left().filter(|left| *left > 0.0).map(|left| format!("about {} left", span(left)));
    let tokens =
        Some(view.tokens).filter(|tokens| *tokens > 0).map(|tokens| format!("{} tokens", count(tokens)));
    let pieces = match view.target.filter(|target| *target > 0) {
        Some(target) => {
            let share = (view.round as f64 / target as f64).min(1.0);
            let at = format!("{} of {}", count(view.round), count(target));
            let bar = format!("{at}  {}  {:.0} %", bar(share), 100.0 * share);
            let at = if bar.chars().count() <= room { bar } else { at };
            [Some(at), left, pace, speed, tokens]
        }
        None => [Some(count(view.round)), pace, speed, tokens, None],
    };
    fit(pieces.into_iter().flatten(), "  ", room)
}

fn losses(view: &View, room: usize) -> String {
    let last = |curve: &super::past::Curve| curve.last_key_value().map(|(_, value)| loss(*value));
    let now = view.loss.map_or("-".to_owned(), loss);
    let said = |what: &str, value: Option<String>| value.map(|value| format!("{what} {value}"));
    let pieces = [
        Some(now),
        said("validation", last(&view.past.validation)),
        said("own text", last(&view.past.personal)),
        said("shared model there", last(&view.past.shared)),
    ];
    let text = fit(pieces.into_iter().flatten(), ", ", room);
    let unit = " nats a token";
    // Where there is room for it, behind the first of them.
    match text.find(',').unwrap_or(text.len()) {
        end if columns(&text) + columns(unit) <= room => {
            let (first, others) = text.split_at(end);
            format!("{first}{unit}{others}")
        }
        _ => text,
    }
}

fn model(view: &View, room: usize) -> (String, Tone) {
    let digest = |chars: usize| view.state_digest.chars().take(chars).collect::<String>();
    let Some(agreement) = view.agreement else {
        return (if view.state_digest.is_empty() { "-".into() } else { digest(16) }, Tone::Plain);
    };
    let all = agreement.same.saturating_add(agreement.differ).saturating_add(agreement.unknown);
    let neighbours =
        |number: u64| format!("{} neighbour{}", count(number), if number == 1 { "" } else { "s" });
    let (words, tone) = match (agreement.differ, agreement.same) {
        (0, 0) if all == 0 => ("nobody to compare it with".to_owned(), Tone::Plain),
        (0, 0) => (format!("not compared yet with {}", neighbours(all)), Tone::Plain),
        (0, same) => (format!("the same as {} of {}", count(same), neighbours(all)), Tone::Good),
        (differ, _) => (format!("DIFFERS from {} of {}", count(differ), neighbours(all)), Tone::Bad),
    };
    let folded = view
        .past
        .folded
        .map(|(folded, late)| format!("{} deltas folded, {} late", count(folded), count(late)));
    // What matters most comes first where there is little room.
    let text =
        fit([Some(words), Some(format!("state {}", digest(8))), folded].into_iter().flatten(), ", ", room);
    (text, tone)
}

fn flow(flow: &Flow, room: usize) -> String {
    let now = format!("{}/s", bytes(flow.a_second));
    let now = match flow.limit {
        Some(limit) => {
            let share = if limit == 0 { 1.0 } else { flow.a_second as f64 / limit as f64 };
            let allowed = format!("{now} of {}/s", bytes(limit));
            let bar = format!("{allowed:<24}{}  {:.0} %", bar(share.min(1.0)), 100.0 * share);
            if bar.chars().count() <= room { bar } else { allowed }
        }
        None => format!("{now}, no limit"),
    };
    fit(
        [now, format!("{} today", bytes(flow.today)), format!("{} in this run", bytes(flow.in_all))],
        ", ",
        room,
    )
}

fn delta(view: &View, room: usize) -> String {
    let Some(bits) = view.bits else { return "none sent yet".into() };
    let bound = view.bound.map(|bound| format!("bound {bound:.2}"));
    let beside =
        view.bound.filter(|bound| *bound > 0.0).map(|bound| format!("{:.2} times as many", bits / bound));
    fit([Some(format!("{bits:.2} bits a coefficient")), bound, beside].into_iter().flatten(), ", ", room)
}

/// A share of one as a bar.
fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full.min(BAR)))
}
