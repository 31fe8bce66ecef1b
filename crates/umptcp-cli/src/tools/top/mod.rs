//! `top`.

mod rates;
mod screen;

use super::{connect, failed, print_json};
use crate::args::tools::TopArgs;
use crate::console::say;
use crate::failure::usage;
use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rates::{Rates, Sort};
use screen::View;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use umptcp_control::call::{ListConnections, ListPaths};
use umptcp_control::{Client, Code, ControlError};

/// How long a key or a signal may go unnoticed.
const NOTICE: Duration = Duration::from_millis(100);

/// Shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(50);

/// How many lines the keys of pages scroll.
const PAGE: usize = 10;

pub(crate) fn top(args: &TopArgs) -> anyhow::Result<()> {
    let interval = args.interval.max(SHORTEST);
    if !args.instance.json && !std::io::stdout().is_terminal() {
        return Err(usage("top needs a terminal; use --json for programs"));
    }
    let client = connect(&args.instance)?;
    let ended = match args.instance.json {
        true => print_looks(client, interval, args.count)?,
        false => show(client, interval, args.count)?,
    };
    if ended {
        say("umptcp: the instance has ended");
    }
    Ok(())
}

/// Asks the instance. False: it has ended.
fn look(client: &mut Client, rates: &mut Rates) -> anyhow::Result<bool> {
    let paths = client.call(&ListPaths {});
    let connections = client.call(&ListConnections {});
    match (paths, connections) {
        (Ok(paths), Ok(connections)) => {
            rates.update(Instant::now(), paths, connections);
            Ok(true)
        }
        (Err(error), _) | (_, Err(error)) => match error {
            ControlError::Ended => Ok(false),
            ControlError::Refused(failure) if failure.code == Code::Ending => Ok(false),
            error => Err(failed(error)),
        },
    }
}

/// A line of JSON for each look. True: the instance has ended.
fn print_looks(mut client: Client, interval: Duration, count: Option<u64>) -> anyhow::Result<bool> {
    let mut rates = Rates::default();
    if !look(&mut client, &mut rates)? {
        return Ok(true);
    }
    for _ in 0..count.unwrap_or(u64::MAX) {
        std::thread::sleep(interval);
        if !look(&mut client, &mut rates)? {
            return Ok(true);
        }
        print_json(&rates.now())?;
    }
    Ok(false)
}

/// On the terminal, which is as before when this returns, however it does. True: the instance has ended.
fn show(mut client: Client, interval: Duration, count: Option<u64>) -> anyhow::Result<bool> {
    let signal = Arc::new(AtomicUsize::new(0));
    let repeated = Arc::new(AtomicBool::new(false));
    for number in [SIGTERM, SIGINT, SIGHUP] {
        // A second one ends the process at once.
        let watched = flag::register_conditional_default(number, repeated.clone())
            .and_then(|_| flag::register_usize(number, signal.clone(), number as usize))
            .and_then(|_| flag::register(number, repeated.clone()));
        watched.context("cannot watch for signals")?;
    }
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = run(&mut terminal, &mut client, interval, count, &signal);
    ratatui::restore();
    let shown = shown?;
    match signal.load(Ordering::SeqCst) {
        0 => Ok(shown),
        number => {
            let _ = signal_hook::low_level::emulate_default_handler(number as i32);
            Ok(shown)
        }
    }
}

fn run(
    terminal: &mut ratatui::DefaultTerminal,
    client: &mut Client,
    interval: Duration,
    count: Option<u64>,
    signal: &AtomicUsize,
) -> anyhow::Result<bool> {
    let mut rates = Rates::default();
    let mut view = View::new(client.greeting());
    let (mut next, mut looks) = (Instant::now(), 0);
    loop {
        if Instant::now() >= next {
            next = Instant::now() + interval;
            if !view.paused && !look(client, &mut rates)? {
                return Ok(true);
            }
            looks += 1;
        }
        terminal.draw(|frame| view.draw(frame, &rates)).context("cannot use the terminal")?;
        // The first look has no rates yet.
        if count.is_some_and(|count| looks > count) || signal.load(Ordering::SeqCst) != 0 {
            return Ok(false);
        }
        let wait = next.saturating_duration_since(Instant::now()).min(NOTICE);
        if event::poll(wait).context("cannot read the keyboard")?
            && let Event::Key(key) = event::read().context("cannot read the keyboard")?
            && !press(&mut view, key)
        {
            return Ok(false);
        }
    }
}

/// A key was pressed. False: it ends the program.
fn press(view: &mut View, key: KeyEvent) -> bool {
    if key.kind == KeyEventKind::Release {
        return true;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c') if control => return false,
        KeyCode::Char('r') => view.sort = Sort::Received,
        KeyCode::Char('t') => view.sort = Sort::Sent,
        KeyCode::Char('b') => view.sort = Sort::Bytes,
        KeyCode::Char('n') => view.sort = Sort::Number,
        KeyCode::Char('p' | ' ') => view.paused = !view.paused,
        KeyCode::Down | KeyCode::Char('j') => view.scroll = view.scroll.saturating_add(1),
        KeyCode::Up | KeyCode::Char('k') => view.scroll = view.scroll.saturating_sub(1),
        KeyCode::PageDown => view.scroll = view.scroll.saturating_add(PAGE),
        KeyCode::PageUp => view.scroll = view.scroll.saturating_sub(PAGE),
        KeyCode::Home => view.scroll = 0,
        _ => {}
    }
    true
}
