//! Which of several addresses of a peer a connection of the kernel is made to (RFC 8305), as the stack's own
//! does it.

use anyhow::anyhow;
use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use umptcp::attempts::{ATTEMPT_DELAY, in_turn};

/// Tries the next of `remotes` whenever an attempt has failed, or none has succeeded within 250 ms, and
/// returns the first connection. `connect` gets an address and what is left of `timeout`. Attempts that are
/// not over by then end by themselves; what they make is closed.
///
/// # Errors
/// That of the attempt that failed last, when all have.
pub(super) fn first_to_connect<T: Send + 'static>(
    remotes: &[SocketAddr],
    timeout: Duration,
    connect: impl Fn(SocketAddr, Duration) -> anyhow::Result<T> + Clone + Send + 'static,
) -> anyhow::Result<T> {
    let remotes = in_turn(remotes.iter().copied());
    if let [remote] = remotes[..] {
        return connect(remote, timeout);
    }
    let end = Instant::now() + timeout;
    let (ended, results) = mpsc::channel();
    let mut waiting = remotes.into_iter();
    let (mut running, mut last) = (0, None);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let next = if left.is_zero() { None } else { waiting.next() };
        let more = next.is_some();
        if let Some(remote) = next {
            let (connect, ended) = (connect.clone(), ended.clone());
            let attempt = move || {
                // Nobody waits any more once another has succeeded.
                let _ = ended.send(connect(remote, left));
            };
            std::thread::Builder::new().name("umptcp-connect".into()).spawn(attempt)?;
            running += 1;
        }
        if running == 0 {
            return Err(last.unwrap_or_else(|| anyhow!("no address to connect to")));
        }
        // Each attempt ends in time.
        let result = if more {
            results.recv_timeout(ATTEMPT_DELAY)
        } else {
            results.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match result {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => {
                tracing::info!("{error:#}");
                running -= 1;
                last = Some(error);
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::sync::mpsc::Receiver;

    const LONG: Duration = Duration::from_secs(30);

    fn remotes(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| format!("{text}:80").parse().unwrap()).collect()
    }

    #[test]
    fn a_silent_address_does_not_keep_the_next_from_being_tried() {
        let (asked, others): (_, Receiver<()>) = mpsc::channel();
        let others = Arc::new(Mutex::new(others));
        let all = remotes(&["192.0.2.1", "192.0.2.2", "[2001:db8::1]"]);
        let silent = all[0];
        let connect = move |remote: SocketAddr, left: Duration| {
            if remote == silent {
                // Answers once the others have been tried.
                let others = others.lock().unwrap();
                let both = others.recv_timeout(left).and_then(|()| others.recv_timeout(left));
                return both.map(|()| remote).map_err(|_| anyhow!("no answer"));
            }
            asked.send(()).unwrap();
            // Nor do these.
            std::thread::sleep(left);
            Err(anyhow!("no answer"))
        };
        assert_eq!(first_to_connect(&all, LONG, connect).unwrap(), silent);
    }

    #[test]
    fn one_that_refuses_is_followed_at_once_and_the_last_error_is_said() {
        let all = remotes(&["192.0.2.1", "192.0.2.2", "[2001:db8::1]"]);
        let tried = Arc::new(Mutex::new(Vec::new()));
        let connect = {
            let tried = Arc::clone(&tried);
            move |remote: SocketAddr, _: Duration| -> anyhow::Result<()> {
                tried.lock().unwrap().push(remote);
                Err(anyhow!("{remote} refuses"))
            }
        };
        let error = first_to_connect(&all, LONG, connect).unwrap_err().to_string();
        assert_eq!(*tried.lock().unwrap(), [all[0], all[2], all[1]], "the families in turn");
        assert_eq!(error, "192.0.2.2:80 refuses");
        let error = first_to_connect(&[], LONG, |_, _| Ok(())).unwrap_err().to_string();
        assert_eq!(error, "no address to connect to");
    }
}
