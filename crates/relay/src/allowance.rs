//! What each client may use: connections at a time, new ones a second, bytes a day.

use crate::key::ClientName;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// After which bytes count from zero again.
pub const DAY: Duration = Duration::from_secs(86_400);

/// What a client may use at most.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: u32,
    /// New connections a second, as many of them at once as ten seconds bring.
    pub rate: u32,
    /// Bytes in 24 hours, of both directions. `None`: any number.
    pub bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: 1_000, rate: 100, bytes: None }
    }
}

/// How many seconds' worth of connections may come at once.
const BURST: f64 = 10.0;

/// What all clients use. There is an account for each client that has shown its key, and no other.
#[derive(Debug, Default)]
pub struct Allowance {
    accounts: Mutex<HashMap<Option<ClientName>, Arc<Account>>>,
}

#[derive(Debug)]
struct Account {
    state: Mutex<State>,
    /// Bytes since `day` began.
    bytes: AtomicU64,
    /// Bytes since the relay began.
    total: AtomicU64,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    open: u32,
    /// Connections that may come at once.
    tokens: f64,
    refilled: Instant,
    day: Instant,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub struct Used(Arc<Account>);

/// What a client has too much of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Exceeded {
    /// Connections at a time.
    #[error("too many connections at a time")]
    Connections,
    /// New ones a second.
    #[error("too many new connections")]
    Rate,
    /// Bytes a day.
    #[error("the bytes of this day are used up")]
    Bytes,
}

/// What a client uses.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Usage {
    /// The client; `None`: all who have none.
    pub client: Option<ClientName>,
    /// Connections at the moment.
    pub open: u32,
    /// Bytes since the relay began, of both directions.
    pub bytes: u64,
}

impl Allowance {
    /// A connection of a client begins.
    ///
    /// # Errors
    /// When that is one too many.
    pub fn begin(&self, client: Option<&ClientName>, limits: Limits, now: Instant) -> Result<Used, Exceeded> {
        let account = {
            let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || {
                let tokens = BURST * f64::from(limits.rate);
                let state = State { limits, open: 0, tokens, refilled: now, day: now };
                Arc::new(Account {
                    state: Mutex::new(state),
                    bytes: AtomicU64::new(0),
                    total: AtomicU64::new(0),
                })
            };
            accounts.entry(client.cloned()).or_insert_with(new).clone()
        };
        account.begin(limits, now)?;
        Ok(Used(account))
    }

    /// What each client uses that has had a connection.
    pub fn usage(&self) -> Vec<Usage> {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(client, account): (&Option<ClientName>, &Arc<Account>)| Usage {
            client: client.clone(),
            open: account.state().open,
            bytes: account.total.load(Ordering::Relaxed),
        };
        let mut all: Vec<Usage> = accounts.iter().map(of).collect();
        all.sort_by(|a, b| a.client.cmp(&b.client));
        all
    }
}

impl Account {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, limits: Limits, now: Instant) -> Result<(), Exceeded> {
        let mut state = self.state();
        state.limits = limits;
        let (rate, passed) = (f64::from(limits.rate), now.saturating_duration_since(state.refilled));
        state.tokens = (state.tokens + passed.as_secs_f64() * rate).min(BURST * rate);
        state.refilled = now;
        self.roll(&mut state, now);
        if limits.bytes.is_some_and(|most| self.bytes.load(Ordering::Relaxed) >= most) {
            return Err(Exceeded::Bytes);
        }
        if state.open >= limits.connections {
            return Err(Exceeded::Connections);
        }
        if state.tokens < 1.0 {
            return Err(Exceeded::Rate);
        }
        state.tokens -= 1.0;
        state.open += 1;
        Ok(())
    }

    fn roll(&self, state: &mut State, now: Instant) {
        if now.saturating_duration_since(state.day) >= DAY {
            state.day = now;
            self.bytes.store(0, Ordering::Relaxed);
        }
    }
}

impl Used {
    /// Counts bytes that have passed.
    ///
    /// # Errors
    /// When the client has used up what it may.
    pub fn count(&self, bytes: usize) -> Result<(), Exceeded> {
        let bytes = bytes as u64;
        let mut state = self.0.state();
        self.0.roll(&mut state, Instant::now());
        self.0.total.fetch_add(bytes, Ordering::Relaxed);
        let now = self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // A lock a piece is cheap beside a system call.
        let most = state.limits.bytes;
        if most.is_some_and(|most| now > most) { Err(Exceeded::Bytes) } else { Ok(()) }
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open = state.open.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_for_each_client() {
        let all = Allowance::default();
        let (a, b): (ClientName, ClientName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let limits = Limits { connections: 2, rate: 1, bytes: Some(100) };
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let begin = |client: &ClientName, seconds| all.begin(Some(client), limits, at(seconds));
        let first = begin(&a, 0).unwrap();
        let second = begin(&a, 0).unwrap();
        assert_eq!(begin(&a, 0).unwrap_err(), Exceeded::Connections);
        drop(second);
        // Ten at once, of which two are gone.
        for _ in 0..8 {
            begin(&a, 0).unwrap();
        }
        assert_eq!(begin(&a, 0).unwrap_err(), Exceeded::Rate);
        begin(&b, 0).unwrap();
        begin(&a, 1).unwrap();
        assert_eq!(begin(&a, 1).unwrap_err(), Exceeded::Rate);
        assert_eq!(first.count(60), Ok(()));
        assert_eq!(first.count(40), Ok(()));
        assert_eq!(begin(&a, 20).unwrap_err(), Exceeded::Bytes);
        assert_eq!(first.count(1), Err(Exceeded::Bytes));
        let of =
            |name: &ClientName| all.usage().into_iter().find(|u| u.client.as_ref() == Some(name)).unwrap();
        assert_eq!((of(&a).open, of(&a).bytes), (1, 101));
        assert_eq!(of(&b).open, 0);
        begin(&a, 86_400).unwrap();
        assert_eq!(all.usage().len(), 2);
    }

    #[test]
    fn a_day_ends_for_a_connection_that_goes_on() {
        let all = Allowance::default();
        let limits = Limits { connections: 1, rate: 1, bytes: Some(100) };
        let Some(yesterday) = Instant::now().checked_sub(DAY) else { return };
        let used = all.begin(None, limits, yesterday).unwrap();
        used.0.bytes.store(100, Ordering::Relaxed);
        assert_eq!(used.count(100), Ok(()));
        assert_eq!(used.count(1), Err(Exceeded::Bytes));
    }
}
