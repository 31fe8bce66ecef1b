//! What is on the screen.

use super::rates::{Rate, RatedConnection, Rates, Sort};
use crate::units;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Sparkline, Table};
use umptcp_control::Greeting;
use umptcp_control::state::Subflow;

/// Columns of a rate.
const RATE: u16 = 12;

/// Columns of a path's name.
const NAME: u16 = 15;

/// Most lines that paths take.
const PATHS: u16 = 8;

/// What the keys have chosen.
pub(super) struct View {
    title: String,
    pub(super) sort: Sort,
    pub(super) scroll: usize,
    pub(super) paused: bool,
}

impl View {
    pub(super) fn new(greeting: &Greeting) -> View {
        let title = format!("umptcp top: {}, process {}", greeting.name, greeting.pid);
        View { title, sort: Sort::default(), scroll: 0, paused: false }
    }

    /// Draws everything. Lines that do not fit can be scrolled to.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, rates: &Rates) {
        let paths = rates.now().paths.len().min(usize::from(PATHS)) as u16;
        let rows = [
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(paths),
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(1),
        ];
        let [title, head, paths, _, table, keys] = Layout::vertical(rows).areas(frame.area());
        self.draw_title(frame, title, rates);
        draw_paths(frame, head, paths, rates);
        self.draw_connections(frame, table, rates);
        let text = "q quit  sort by: r received  t sent  b bytes  n number  arrows scroll  p pause";
        frame.render_widget(Line::styled(text, Modifier::DIM), keys);
    }

    fn draw_title(&self, frame: &mut Frame<'_>, area: Rect, rates: &Rates) {
        let connections = &rates.now().connections;
        let mptcp = connections.iter().filter(|c| c.what.mptcp == Some(true)).count();
        let paused = if self.paused { ", paused" } else { "" };
        let text = format!("{}; {} connections, {mptcp} MPTCP{paused}", self.title, connections.len());
        frame.render_widget(Line::styled(text, Modifier::BOLD), area);
    }

    fn draw_connections(&mut self, frame: &mut Frame<'_>, area: Rect, rates: &Rates) {
        let rows: Vec<Row<'_>> = rates.sorted(self.sort).into_iter().flat_map(connection_rows).collect();
        let visible = usize::from(area.height.saturating_sub(1));
        self.scroll = self.scroll.min(rows.len().saturating_sub(visible));
        let mark = |sort: Sort, name: &str| format!("{name}{}", if self.sort == sort { "*" } else { "" });
        let header = [
            mark(Sort::Number, "ID"),
            "PEER, SUBFLOW".to_owned(),
            mark(Sort::Sent, "SENT/s"),
            mark(Sort::Received, "RECEIVED/s"),
            mark(Sort::Bytes, "BYTES"),
            "RTT".to_owned(),
            "STATE".to_owned(),
        ];
        let widths = [
            Constraint::Length(5),
            Constraint::Fill(3),
            Constraint::Length(RATE),
            Constraint::Length(RATE),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Fill(2),
        ];
        let table = Table::new(rows.into_iter().skip(self.scroll), widths)
            .column_spacing(1)
            .header(Row::new(header).style(Style::new().add_modifier(Modifier::REVERSED)));
        frame.render_widget(table, area);
    }
}

fn draw_paths(frame: &mut Frame<'_>, head: Rect, area: Rect, rates: &Rates) {
    let columns =
        [Constraint::Length(NAME), Constraint::Length(RATE), Constraint::Length(RATE), Constraint::Min(0)];
    let columns = Layout::horizontal(columns).spacing(1);
    for (text, at) in ["PATH", "SENT/s", "RECEIVED/s", "BOTH"].into_iter().zip(columns.areas::<4>(head)) {
        frame.render_widget(Line::styled(text, Modifier::REVERSED), at);
    }
    for (path, y) in rates.now().paths.iter().zip(area.y..area.bottom()) {
        let [name, sent, received, graph] = columns.areas(Rect { y, height: 1, ..area });
        let backup = if path.what.backup { " (b)" } else { "" };
        frame.render_widget(Line::raw(format!("{}{backup}", path.what.name)), name);
        frame.render_widget(Paragraph::new(sent_rate(&path.rate)), sent);
        frame.render_widget(Paragraph::new(received_rate(&path.rate)), received);
        // The last ones that fit.
        let history: Vec<u64> = rates.history(&path.what.name).collect();
        let from = history.len().saturating_sub(usize::from(graph.width));
        frame.render_widget(Sparkline::default().data(&history[from..]), graph);
    }
}

fn sent_rate(rate: &Rate) -> String {
    units::rate(rate.sent_bps)
}

fn received_rate(rate: &Rate) -> String {
    units::rate(rate.received_bps)
}

/// A connection, then each of its subflows.
fn connection_rows(c: &RatedConnection) -> Vec<Row<'static>> {
    let state = match (c.what.mptcp, &c.what.why_tcp) {
        (Some(true), _) => format!("MPTCP {}", c.what.scheduler),
        (Some(false), Some(why)) => format!("TCP: {why}"),
        _ => "negotiating".to_owned(),
    };
    let first = Row::new([
        c.what.id.to_string(),
        c.what.remote.to_string(),
        sent_rate(&c.rate),
        received_rate(&c.rate),
        bytes(c.what.bytes_sent + c.what.bytes_received),
        String::new(),
        state,
    ]);
    let subflow = |(f, rate): (&Subflow, &Rate)| {
        let backup = if f.backup { " backup" } else { "" };
        let retrans =
            if f.bytes_retrans > 0 { format!(" {} again", bytes(f.bytes_retrans)) } else { String::new() };
        Row::new([
            format!(" {}", f.id),
            format!(" {} {}", f.path, f.local.ip()),
            sent_rate(rate),
            received_rate(rate),
            bytes(f.bytes_sent + f.bytes_received),
            f.rtt_ms.map(|ms| format!("{ms:.1} ms")).unwrap_or_default(),
            format!("{}{backup}{retrans}", f.health),
        ])
        .style(Modifier::DIM)
    };
    std::iter::once(first).chain(c.what.subflows.iter().zip(&c.subflow_rates).map(subflow)).collect()
}

/// Bytes in few columns.
fn bytes(count: u64) -> String {
    units::bytes(count).replace(" bytes", " B")
}

#[cfg(test)]
mod tests {
    use super::super::rates::tests::two_looks;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use umptcp_control::Kind;

    fn view() -> View {
        View::new(&Greeting {
            protocol: String::new(),
            version: 1,
            name: "run-7".to_owned(),
            pid: 7,
            kind: Kind::Run,
            software: String::new(),
        })
    }

    fn screen(view: &mut View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let rates = two_looks();
        terminal.draw(|frame| view.draw(frame, &rates)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        cells.chunks(usize::from(width)).map(|line| line.concat().trim_end().to_owned()).collect()
    }

    #[test]
    fn everything_fits_into_a_small_terminal() {
        for (width, height) in [(80, 24), (140, 50)] {
            let lines = screen(&mut view(), width, height);
            let all = lines.join("\n");
            assert!(lines[0].starts_with("umptcp top: run-7, process 7; 2 connections, 1 MPTCP"), "{all}");
            assert!(lines[2].starts_with("eth0            16.0 kbit/s ") && lines[2].contains('█'), "{all}");
            assert!(lines[3].starts_with("wlan0           4.00 kbit/s  4.00 kbit/s"), "{all}");
            assert!(lines[5].contains("RECEIVED/s*") && lines[5].contains("STATE"), "{all}");
            // The one that receives, then the one that sends, each with its subflows.
            assert!(lines[6].starts_with("5     10.9.0.1:80") && lines[6].contains("TCP: the p"), "{all}");
            assert!(lines[7].starts_with(" 0     wlan0") && lines[7].contains("20.2 ms"), "{all}");
            assert!(lines[8].starts_with("3     10.9.0.1:80") && lines[8].contains("MPTCP min-"), "{all}");
            assert!(lines[10].contains("4.00 kbit/s") && lines[10].contains("answers"), "{all}");
            assert!(lines.last().is_some_and(|l| l.starts_with("q quit")), "{all}");
        }
    }

    #[test]
    fn what_does_not_fit_is_scrolled_to_and_no_size_panics() {
        let mut view = view();
        view.sort = Sort::Number;
        view.scroll = 1000;
        let lines = screen(&mut view, 80, 9);
        assert_eq!(view.scroll, 3, "of five rows two are visible: {lines:?}");
        assert!(lines[6].starts_with("5 ") && lines[7].starts_with(" 0"), "{lines:?}");
        for (width, height) in [(1, 1), (3, 2), (10, 5), (500, 200)] {
            screen(&mut view, width, height);
        }
    }
}
