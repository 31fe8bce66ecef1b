//! When timers fire, and what happens then. Deadlines and handlers go by the same list, [`Timer::ALL`].

use super::control_block::Tcp;
use super::outcome::Fired;
use super::state::{CloseReason, Event, State};
use super::timers::Timer;
use crate::config::KeepAlive;
use core::fmt::Debug;
use umptcp_congestion::CongestionController;
use umptcp_types::{Duration, Instant};

impl<M: Copy + Debug> Tcp<M> {
    /// When `timer` fires; `None`: it does not run.
    fn deadline(&self, timer: Timer) -> Option<Instant> {
        match timer {
            Timer::User => {
                let waiting = !self.sender.is_all_acked() || self.timers.is_running(Timer::Persist);
                waiting.then(|| self.sender.progress() + self.config.user_timeout)
            }
            Timer::Reorder => self.sender.reorder_deadline(),
            timer => self.timers.deadline(timer),
        }
    }

    /// When [`on_timer`](Self::on_timer) must be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if self.state() == State::Closed {
            return None;
        }
        Timer::ALL.into_iter().filter_map(|timer| self.deadline(timer)).min()
    }

    /// Fires what is due at `now`.
    pub(crate) fn on_timer(&mut self, now: Instant, cc: &mut dyn CongestionController) -> Fired {
        let mut fired = Fired::default();
        for timer in Timer::ALL {
            if self.state() == State::Closed {
                break;
            }
            // What fired before may have stopped it or put it off.
            if self.deadline(timer).is_some_and(|at| at <= now) {
                self.fire(timer, now, cc, &mut fired);
            }
        }
        fired
    }

    fn fire(&mut self, timer: Timer, now: Instant, cc: &mut dyn CongestionController, fired: &mut Fired) {
        let m = self.moment(now);
        match timer {
            Timer::User => {
                self.terminate(CloseReason::TimedOut);
                fired.ended = true;
            }
            Timer::Close => {
                self.timers.stop(Timer::Close);
                self.life.on(Event::TimeWaitOver);
                fired.ended = true;
            }
            Timer::Reorder => fired.recovery = self.sender.on_reorder_timer(m, &mut self.timers, cc),
            Timer::TailProbe => self.sender.on_tail_probe_timer(m, &mut self.timers),
            Timer::Retransmit => {
                fired.smaller_packets = self.sender.on_retransmission_timer(m, &mut self.timers, cc);
                fired.timeout = true;
            }
            Timer::DelayedAck => {
                self.timers.stop(Timer::DelayedAck);
                self.acker.owe_now();
            }
            Timer::Persist => self.sender.on_persist_timer(now, &mut self.timers),
            Timer::KeepAlive => {
                let settings = self.config.effective_keep_alive().unwrap_or_default();
                if self.timers.keep_alive_due() > settings.count {
                    self.terminate(CloseReason::TimedOut);
                    fired.ended = true;
                } else {
                    self.sender.probe_peer();
                    self.timers.start(Timer::KeepAlive, now + settings.interval);
                }
            }
        }
    }

    /// Other keep-alive probes from now on.
    pub(crate) fn set_keep_alive(&mut self, now: Instant, settings: Option<KeepAlive>) {
        self.config.keep_alive = settings;
        self.heard(now);
    }

    /// Asks the peer for a sign of life now, and as keep-alive probes go on where none comes.
    pub(crate) fn ask_for_life(&mut self, now: Instant) {
        if self.is_synchronized() && !self.timers.waits_for_life() {
            self.config.keep_alive.get_or_insert_with(KeepAlive::once);
            self.timers.start(Timer::KeepAlive, now);
        }
    }

    /// Another time without progress ends the subflow.
    pub(crate) fn set_user_timeout(&mut self, limit: Duration) {
        self.config.user_timeout = limit;
    }

    /// Something arrived: the peer lives.
    pub(super) fn heard(&mut self, now: Instant) {
        let keep_alive = self.config.effective_keep_alive().filter(|_| self.is_synchronized());
        self.timers.peer_alive(now, keep_alive.map(|k| k.idle));
    }
}
