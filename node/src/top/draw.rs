//! Where what goes.
//!
//! The facts and the line of keys are always there; below [`LEAST`] there is only a word about that. Of the rows that are
//! left, peers come first, then the log, then the curves, which take what remains; from [`WIDE`] columns on curves and
//! peers stand beside each other. So a screen that shrinks loses the curves first, then the log, then the peers.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Widget, Wrap};

use super::chart::{curves, legend};
use super::facts::{FACTS, facts};
use super::look::Look;
use super::text::{count, ends, fit};
use super::view::{Peer, View};

/// The smallest screen.
pub(super) const LEAST: (u16, u16) = (40, 10);
/// Columns from which on curves and peers stand beside each other.
const WIDE: u16 = 110;
/// Least rows of peers, of the log and of the curves, each with its title.
const PEERS: u16 = 3;
const LOG: u16 = 3;
const CURVES: u16 = 6;

/// What can be scrolled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Focus {
    /// The list of peers.
    #[default]
    Peers,
    /// The log.
    Log,
}

/// What the user has chosen to see.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    pub(super) focus: Focus,
    /// Peers above the list.
    pub(super) peers: usize,
    /// Lines below the log.
    pub(super) log: usize,
    pub(super) help: bool,
    /// Whether keys do anything.
    pub(super) keys: bool,
    /// A word in place of the keys.
    pub(super) message: Option<String>,
}

/// Draws the view.
pub(super) fn draw(view: &View, chosen: &Chosen, look: Look, area: Rect, buffer: &mut Buffer) {
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let words = format!(
            "the terminal is too small: {} x {}, it takes {} x {}",
            area.width, area.height, LEAST.0, LEAST.1
        );
        Paragraph::new(words).wrap(Wrap { trim: true }).render(area, buffer);
    } else {
        parts(view, chosen, look, area, buffer);
        if chosen.help {
            help(area, buffer);
        }
    }
    if !look.unicode {
        to_ascii(area, buffer);
    }
}

fn parts(view: &View, chosen: &Chosen, look: Look, area: Rect, buffer: &mut Buffer) {
    let rows = |y: u16, height: u16| Rect { x: area.x, y: area.y + y, width: area.width, height };
    Paragraph::new(facts(view, look, area.width.into())).render(rows(0, FACTS), buffer);
    footer(view, chosen, rows(area.height - 1, 1), buffer);
    let left = area.height - FACTS - 1;
    let wide = area.width >= WIDE && left >= CURVES + LOG;
    let listed = u16::try_from(view.peers.len()).unwrap_or(u16::MAX).saturating_add(1);
    if wide {
        let log = (left / 3).max(LOG);
        let upper = rows(FACTS, left - log);
        let split = upper.width * 3 / 5;
        chart(view, look, Rect { width: split - 1, ..upper }, buffer);
        peers(view, chosen, Rect { x: upper.x + split, width: upper.width - split, ..upper }, buffer);
        lines(view, chosen, rows(FACTS + left - log, log), buffer);
    } else if left >= CURVES + PEERS + LOG {
        let spare = left - CURVES - PEERS - LOG;
        let few = listed.clamp(PEERS, PEERS + spare / 3);
        let log = LOG + spare / 3;
        let above = left - few - log;
        chart(view, look, rows(FACTS, above), buffer);
        peers(view, chosen, rows(FACTS + above, few), buffer);
        lines(view, chosen, rows(FACTS + above + few, log), buffer);
    } else if left >= PEERS + LOG {
        let few = listed.clamp(PEERS, left - LOG);
        peers(view, chosen, rows(FACTS, few), buffer);
        lines(view, chosen, rows(FACTS + few, left - few), buffer);
    } else if left >= PEERS {
        peers(view, chosen, rows(FACTS, left), buffer);
    }
}

/// A line between two parts, with a name in it; returns what is below.
fn title(words: &str, is_chosen: bool, area: Rect, buffer: &mut Buffer) -> Rect {
    let mark = if is_chosen { "▶ " } else { "" };
    let start = format!("── {mark}{words} ");
    let rule = "─".repeat(usize::from(area.width).saturating_sub(start.chars().count()));
    let style = if is_chosen { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    buffer.set_stringn(area.x, area.y, start + &rule, area.width.into(), style);
    Rect { y: area.y + 1, height: area.height - 1, ..area }
}

fn chart(view: &View, look: Look, area: Rect, buffer: &mut Buffer) {
    let legend = legend(&view.past);
    let words = if legend.is_empty() { "loss".to_owned() } else { format!("loss: {legend}") };
    let below = title(&words, false, area, buffer);
    curves(&view.past, look, below, buffer);
}

/// The part of `all` that `rows` rows show from `from` on, and which that is.
fn part(all: usize, rows: usize, from: usize) -> (usize, String) {
    let from = from.min(all.saturating_sub(rows));
    let shown =
        if all > rows { format!(" ({} to {})", from + 1, (from + rows).min(all)) } else { String::new() };
    (from, shown)
}

fn peers(view: &View, chosen: &Chosen, area: Rect, buffer: &mut Buffer) {
    let rows = usize::from(area.height - 1);
    let (from, shown) = part(view.peers.len(), rows, chosen.peers);
    // Connected peers are counted with each that belongs to the swarm; so they are in status.json.
    let about = view.estimated.map(|all| format!(" of a swarm of about {}", count(all)));
    let words = format!("peers: {}{shown}{}", count(view.neighbours), about.unwrap_or_default());
    let below = title(&words, chosen.keys && chosen.focus == Focus::Peers, area, buffer);
    if view.peers.is_empty() {
        buffer.set_stringn(below.x, below.y, "connected to nobody", below.width.into(), Style::new());
    }
    for (y, peer) in (below.y..below.bottom()).zip(view.peers.iter().skip(from)) {
        buffer.set_stringn(below.x, y, told(peer, below.width.into()), below.width.into(), Style::new());
    }
}

fn told(peer: &Peer, width: usize) -> String {
    let latency = peer
        .latency
        .map_or("- ms".to_owned(), |ms| if ms < 100_000 { format!("{ms} ms") } else { "> 99 s".to_owned() });
    let start = format!("{:<11} {latency:>8}  {}", ends(&peer.id, 4, 6), peer.route);
    let more = (peer.more > 0).then(|| format!("and {} more", peer.more));
    let pieces = [Some(start), Some(peer.over.clone()), Some(peer.address.clone()), more];
    fit(pieces.into_iter().flatten().filter(|piece| !piece.is_empty()), "  ", width)
}

fn lines(view: &View, chosen: &Chosen, area: Rect, buffer: &mut Buffer) {
    let rows = usize::from(area.height - 1);
    let below_it = chosen.log.min(view.log.len().saturating_sub(rows));
    let from = view.log.len().saturating_sub(rows + below_it);
    let further = if below_it > 0 { format!(", {below_it} more below") } else { String::new() };
    let words = format!("log (UTC){further}");
    let below = title(&words, chosen.keys && chosen.focus == Focus::Log, area, buffer);
    for (y, line) in (below.y..below.bottom()).zip(view.log.iter().skip(from)) {
        buffer.set_stringn(below.x, y, line, below.width.into(), Style::new());
    }
}

fn footer(view: &View, chosen: &Chosen, area: Rect, buffer: &mut Buffer) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let words = match (&chosen.message, &view.trouble) {
        (Some(message), _) => Line::from(Span::styled(message.clone(), bold)),
        (None, Some(trouble)) => Line::from(Span::styled(trouble.clone(), bold)),
        (None, None) if chosen.keys => {
            let pause = if view.is_held() { "p pause/resume" } else { "p pause" };
            let other = if chosen.focus == Focus::Peers { "tab log" } else { "tab peers" };
            let keys = ["q quit", pause, "? help", other, "↑ ↓ scroll"].map(str::to_owned);
            Line::from(fit(keys, "   ", area.width.into()))
        }
        (None, None) => return,
    };
    buffer.set_line(area.x, area.y, &words, area.width);
}

/// What the keys do and the words mean.
const HELP: &[&str] = &[
    "q, Esc, Ctrl-C  leave; the node goes on",
    "p               pause it, or let it go on",
    "Tab             scroll the other list",
    "arrows, Page    scroll",
    "?               this, and back",
    "",
    "loss    nats a token; lower is better",
    "device  when it may train, and why not",
    "model   whether neighbours hold the same",
    "delta   bits of what it sends, and the",
    "        least that takes",
];

fn help(area: Rect, buffer: &mut Buffer) {
    let width = HELP.iter().map(|line| line.chars().count()).max().unwrap_or(0) as u16;
    let (width, height) = ((width + 2).min(area.width), (HELP.len() as u16 + 2).min(area.height));
    let at =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(at, buffer);
    let below = title("help", false, at, buffer);
    for (y, line) in (below.y..below.bottom()).zip(HELP) {
        buffer.set_stringn(below.x + 1, y, line, usize::from(below.width).saturating_sub(1), Style::new());
    }
    if height == HELP.len() as u16 + 2 {
        buffer.set_stringn(at.x, at.bottom() - 1, "─".repeat(width.into()), width.into(), Style::new());
    }
}

/// Puts something that every terminal can show in the place of each character that not every one can.
fn to_ascii(area: Rect, buffer: &mut Buffer) {
    for position in area.positions() {
        let Some(cell) = buffer.cell_mut(position) else { continue };
        if cell.symbol().is_ascii() {
            continue;
        }
        let plain = match cell.symbol() {
            "─" => "-",
            "│" => "|",
            "└" | "┌" | "┐" | "┘" => "+",
            "█" => "#",
            "░" => ".",
            "…" => "~",
            "▶" => ">",
            "↑" => "^",
            "↓" => "v",
            "•" => "*",
            _ => "?",
        };
        cell.set_symbol(plain);
    }
}

/// The view as text, without what is only for a terminal.
pub(crate) fn as_text(folder: &mut super::Folder, look: Look, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw(&folder.look(), &Chosen::default(), look, area, &mut buffer);
    text_of(&buffer)
}

/// What a buffer shows, without spaces at the ends of lines and empty lines at the end.
pub(super) fn text_of(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.rows() {
        let mut line = String::new();
        let mut hidden = 0;
        for cell in y.positions().filter_map(|position| buffer.cell(position)) {
            // A character that is two columns wide hides the next cell.
            if hidden > 0 {
                hidden -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            hidden = Span::raw(cell.symbol()).width().saturating_sub(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}
