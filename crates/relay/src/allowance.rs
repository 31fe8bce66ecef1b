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

/// Whose connections they are. Each has the whole of [`Limits::connections`] and [`Limits::rate`]: strangers who
/// visit a client's ports cannot keep it from its own connections. Bytes are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// The client's own.
    Own,
    /// Those of visitors of its ports, and those that wait for one.
    Visitors,
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
    /// By [`Share`].
    taken: [Taken; 2],
    day: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    open: u32,
    /// Connections that may come at once.
    tokens: f64,
    refilled: Instant,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub struct Used(Arc<Account>, Share);

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
    pub fn begin(
        &self,
        client: Option<&ClientName>,
        share: Share,
        limits: Limits,
        now: Instant,
    ) -> Result<Used, Exceeded> {
        let account = {
            let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || {
                let tokens = BURST * f64::from(limits.rate);
                let state = State { limits, taken: [Taken { open: 0, tokens, refilled: now }; 2], day: now };
                Arc::new(Account {
                    state: Mutex::new(state),
                    bytes: AtomicU64::new(0),
                    total: AtomicU64::new(0),
                })
            };
            accounts.entry(client.cloned()).or_insert_with(new).clone()
        };
        account.begin(share, limits, now)?;
        Ok(Used(account, share))
    }

    /// What each client uses that has had a connection.
    pub fn usage(&self) -> Vec<Usage> {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(client, account): (&Option<ClientName>, &Arc<Account>)| Usage {
            client: client.clone(),
            open: account.state().taken.iter().map(|taken| taken.open).sum(),
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

    fn begin(&self, share: Share, limits: Limits, now: Instant) -> Result<(), Exceeded> {
        let mut state = self.state();
        state.limits = limits;
        self.roll(&mut state, now);
        let taken = &mut state.taken[share as usize];
        let (rate, passed) = (f64::from(limits.rate), now.saturating_duration_since(taken.refilled));
        taken.tokens = (taken.tokens + passed.as_secs_f64() * rate).min(BURST * rate);
        taken.refilled = now;
        if limits.bytes.is_some_and(|most| self.bytes.load(Ordering::Relaxed) >= most) {
            return Err(Exceeded::Bytes);
        }
        if taken.open >= limits.connections {
            return Err(Exceeded::Connections);
        }
        if taken.tokens < 1.0 {
            return Err(Exceeded::Rate);
        }
        taken.tokens -= 1.0;
        taken.open += 1;
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
        let taken = &mut state.taken[self.1 as usize];
        taken.open = taken.open.saturating_sub(1);
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
        let begin = |client: &ClientName, seconds| all.begin(Some(client), Share::Own, limits, at(seconds));
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
    fn visitors_take_nothing_from_the_client_but_bytes() {
        let (all, now) = (Allowance::default(), Instant::now());
        let limits = Limits { connections: 2, rate: 1, bytes: Some(100) };
        let begin = |share| all.begin(None, share, limits, now);
        let visitors = [Share::Visitors; 2].map(|share| begin(share).unwrap());
        assert_eq!(begin(Share::Visitors).unwrap_err(), Exceeded::Connections);
        let _own = [Share::Own; 2].map(|share| begin(share).unwrap());
        assert_eq!(begin(Share::Own).unwrap_err(), Exceeded::Connections);
        assert_eq!(all.usage()[0].open, 4);
        assert_eq!(visitors[0].count(100), Ok(()));
        drop(visitors);
        assert_eq!(all.usage()[0].open, 2);
        assert_eq!(begin(Share::Visitors).unwrap_err(), Exceeded::Bytes);
    }

    #[test]
    fn a_day_ends_for_a_connection_that_goes_on() {
        let all = Allowance::default();
        let limits = Limits { connections: 1, rate: 1, bytes: Some(100) };
        let Some(yesterday) = Instant::now().checked_sub(DAY) else { return };
        let used = all.begin(None, Share::Own, limits, yesterday).unwrap();
        used.0.bytes.store(100, Ordering::Relaxed);
        assert_eq!(used.count(100), Ok(()));
        assert_eq!(used.count(1), Err(Exceeded::Bytes));
    }
}
