//! The single source of observation: things are reported where they happen, and everything that watches
//! (counters, `tracing`, packet comments, tests) is fed from here.

use umptcp_types::{ConnectionId, Instant, SubflowId};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters with Linux's MIB names (prefix `MPTcpExt`), then a few for plain TCP (prefix `Tcp`).
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// Every counter.
            pub const ALL: &'static [Counter] = &[$(Counter::$name,)*];

            /// Its name, without prefix.
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$name => stringify!($name),)* }
            }
        }
    };
}

counters! {
    /// SYN received at a listener whose MP_CAPABLE offers a version and algorithm that the stack knows.
    MPCapableSYNRX,
    /// SYN with MP_CAPABLE sent.
    MPCapableSYNTX,
    /// SYN/ACK with MP_CAPABLE received.
    MPCapableSYNACKRX,
    /// Third ACK with MP_CAPABLE received.
    MPCapableACKRX,
    /// Server: fell back at the third ACK.
    MPCapableFallbackACK,
    /// Client: fell back at the SYN/ACK.
    MPCapableFallbackSYNACK,
    /// Client: SYNs with MP_CAPABLE were lost and the connection continued without.
    MPCapableSYNTXDrop,
    /// Client: MPTCP was not tried because SYNs with it were lost towards that network lately.
    MPCapableSYNTXDisabled,
    /// A network was found to lose SYNs with MP_CAPABLE.
    Blackhole,
    /// Fell back because no unique token could be made.
    MPFallbackTokenInit,
    /// Join for a token nobody has.
    MPJoinNoTokenFound,
    /// SYN with MP_JOIN received.
    MPJoinSynRx,
    /// The same with the backup flag.
    MPJoinSynBackupRx,
    /// SYN/ACK with MP_JOIN received.
    MPJoinSynAckRx,
    /// The same with the backup flag.
    MPJoinSynAckBackupRx,
    /// HMAC of the SYN/ACK was wrong.
    MPJoinSynAckHMacFailure,
    /// Third ACK with MP_JOIN received, valid, and the subflow accepted.
    MPJoinAckRx,
    /// HMAC of the third ACK was wrong.
    MPJoinAckHMacFailure,
    /// Join refused (limits, closed or fallen-back connection).
    MPJoinRejected,
    /// SYN with MP_JOIN received for another port than the first subflow's.
    MPJoinPortSynRx,
    /// SYN/ACK with MP_JOIN received from another port than the first subflow's.
    MPJoinPortSynAckRx,
    /// Third ACK with MP_JOIN received and valid, for another port than the first subflow's.
    MPJoinPortAckRx,
    /// SYN with MP_JOIN received for a port that is neither the first subflow's nor advertised: refused.
    MismatchPortSynRx,
    /// The same at the third ACK: the advertisement was taken back meanwhile.
    MismatchPortAckRx,
    /// Half-open join dropped: its third ACK never came, or too many were half-open, the oldest first.
    MPJoinHalfOpenDrop,
    /// SYN with MP_JOIN sent.
    MPJoinSynTx,
    /// No local port was left for a SYN with MP_JOIN.
    MPJoinSynTxBindErr,
    /// Join put off: the connection has begun too many of late.
    MPJoinSynTxPutOff,
    /// No subflow to open for a join: every Address ID is in use.
    MPJoinSynTxCreatSkErr,
    /// Server: data dropped that overtook the third ACK, or came in its stead; the client sends its keys
    /// again.
    MPCapableAckOvertaken,
    /// MP_CAPABLE on data with other keys than the connection's: ignored.
    MPCapableKeyMismatch,
    /// Connection-level retransmissions (reinjections), in segments.
    MPTCPRetrans,
    /// Segments of data that the scheduler has sent on a further subflow, in case it is quicker there.
    MPTCPRepeat,
    /// Segments of the oldest data sent on a faster subflow because the shared window was full.
    MPTCPOpportunistic,
    /// Times the window of a slow subflow was halved because it held the others up.
    SubflowPenalised,
    /// Packets sent on a subflow to measure a round-trip time that nothing has measured for long.
    SubflowMeasured,
    /// What a path, or a connection on it, may carry is nearly used up: it is left.
    PathCapReached,
    /// Acknowledgements on a subflow were late: others took over what it carried.
    SubflowSuspect,
    /// They came after all, without a retransmission timeout: the path was only late.
    SubflowSuspectNeedless,
    /// A mapping did not agree with an earlier one.
    DSSNotMatching,
    /// Data without a mapping could not be delivered.
    DSSNoMatchTCP,
    /// Checksum failure or malformed DSS: fell back.
    DSSCorruptionFallback,
    /// Checksum failure or malformed DSS: subflow reset.
    DSSCorruptionReset,
    /// More mappings than the window has use for, or one over very many: subflow reset.
    DSSTooMany,
    /// DATA_ACK of data never sent: ignored.
    DataAckInvalid,
    /// Infinite mapping sent.
    InfiniteMapTx,
    /// Infinite mapping received.
    InfiniteMapRx,
    /// DSS checksum wrong.
    DataCsumErr,
    /// Data segments that extended the tail of the out-of-order queue.
    OFOQueueTail,
    /// Data segments put into the out-of-order queue.
    OFOQueue,
    /// Data segments merged in the out-of-order queue.
    OFOMerge,
    /// Mapping outside the window.
    NoDSSInWindow,
    /// Data received that had been received before.
    DuplicateData,
    /// ADD_ADDR received.
    AddAddr,
    /// ADD_ADDR sent.
    AddAddrTx,
    /// ADD_ADDR given up: nobody echoed it.
    AddAddrTxDrop,
    /// ADD_ADDR echo received.
    EchoAdd,
    /// ADD_ADDR echo sent.
    EchoAddTx,
    /// ADD_ADDR echo left out: too many signals wait.
    EchoAddTxDrop,
    /// ADD_ADDR with port received.
    PortAdd,
    /// ADD_ADDR dropped: HMAC, duplicate, limits.
    AddAddrDrop,
    /// Addresses in REMOVE_ADDR received.
    RmAddr,
    /// Addresses in REMOVE_ADDR that stand for nothing.
    RmAddrDrop,
    /// Addresses in REMOVE_ADDR sent.
    RmAddrTx,
    /// Addresses in REMOVE_ADDR that no subflow could carry.
    RmAddrTxDrop,
    /// Subflows closed because their address was removed.
    RmSubflow,
    /// MP_PRIO sent.
    MPPrioTx,
    /// MP_PRIO received.
    MPPrioRx,
    /// MP_FAIL sent.
    MPFailTx,
    /// MP_FAIL received.
    MPFailRx,
    /// MP_FAIL received on a connection without checksums: ignored.
    MPFailUnexpected,
    /// MP_FASTCLOSE sent.
    MPFastcloseTx,
    /// MP_FASTCLOSE received.
    MPFastcloseRx,
    /// MP_FASTCLOSE with another key than ours: ignored.
    MPFastcloseKeyMismatch,
    /// MP_TCPRST sent.
    MPRstTx,
    /// MP_TCPRST received.
    MPRstRx,
    /// A subflow stopped answering.
    SubflowStale,
    /// A stale subflow answered again.
    SubflowRecover,
    /// Probes of a closed window.
    WinProbe,
    /// Data-level retransmission timeouts: no DATA_ACK came (RFC 8684 §3.3.6).
    MPTCPTimeouts,
    /// Times the peer was asked for a DATA_ACK that did not come although subflows acknowledge.
    DataAckProbe,
    /// Fell back at the first data.
    MPCapableDataFallback,
    /// Fell back for lack of a DSS option.
    DssFallback,
    /// Fell back after a simultaneous open.
    SimultConnectFallback,
    /// Fallback would have been needed and was not allowed any more.
    FallbackFailed,
    /// MPTCP connections established at the moment (a gauge).
    MPCurrEstab,
    /// Segments retransmitted on subflows.
    TcpRetransSegs,
    /// Retransmission timeouts.
    TcpTimeouts,
    /// Loss episodes repaired without a timeout.
    TcpFastRecovery,
    /// Tail loss probes sent.
    TcpLossProbes,
    /// Losses that a tail loss probe repaired and nothing else shows (RFC 8985 §7.4.2).
    TcpLossProbeRecovery,
    /// Timeouts found spurious by F-RTO and undone (RFC 5682).
    TcpSpuriousRTOs,
    /// Timeouts found spurious by timestamps (RFC 3522), or before anything was sent again, and undone.
    TcpLossUndo,
    /// Fast recoveries found needless by timestamps (RFC 3522), or before anything was sent again, and
    /// undone.
    TcpFullUndo,
    /// Recoveries undone because all that was sent again arrived twice (RFC 3708).
    TcpDSACKUndo,
    /// Windows reduced because the peer reported congestion marks (RFC 3168).
    TcpECNReductions,
    /// Data packets received with a congestion mark (Linux: IpExtInCEPkts).
    TcpInCEPkts,
    /// Packets made smaller because ICMP said that they are too big (RFC 1191, RFC 8201).
    TcpPmtuReduced,
    /// Packets made smaller because full ones seem to vanish (RFC 4821 §7.7).
    TcpPmtuBlackHole,
    /// Probes by which packets were found to pass that are larger than those before (RFC 4821 §7.6.1).
    TcpMTUPSuccess,
    /// Such probes that were lost, and nothing else with them (RFC 4821 §7.6.2).
    TcpMTUPFail,
    /// ICMP errors that quote nothing outstanding (RFC 5927).
    TcpOutOfWindowIcmps,
    /// Subflows and connections given up because the peer stopped answering.
    TcpAbortOnTimeout,
    /// Connections reset when they were let go of, because too many were still delivering, or too much.
    TcpAbortOnMemory,
    /// Out-of-order data dropped, on a subflow or at the data level: too many pieces were held, or too many
    /// bytes by all subflows or all connections together.
    TcpOFODrop,
    /// Data dropped that were in order, because all connections together hold what they may and the
    /// application has not read what came before.
    TcpRcvQDrop,
    /// Times that all out-of-order data of a connection were dropped, because all connections together hold
    /// what they may and those before did not come (Linux: TcpExtOfoPruned).
    TcpOfoPruned,
    /// Times that memory became scarce: automatic buffers fell back to what they begin with.
    TcpMemoryPressures,
    /// Segments received with a wrong checksum.
    TcpInCsumErrors,
    /// Packets that could not be parsed.
    TcpInErrs,
    /// Packets for an address that is not ours, or from one that cannot be answered (Linux: IpInAddrErrors).
    TcpInAddrErrors,
    /// Fragments of TCP segments: they are not put together (Linux: IpReasmFails).
    TcpReasmFails,
    /// ICMP messages that are malformed or concern no connection (Linux: IcmpInErrors).
    TcpIcmpInErrors,
    /// RSTs sent.
    TcpOutRsts,
    /// Challenge ACKs sent (RFC 5961).
    TcpChallengeAck,
    /// Challenge ACKs and RSTs left out because there were too many (RFC 5961 §7).
    TcpACKSkippedChallenge,
    /// Segments rejected by PAWS (RFC 7323).
    TcpPawsRejected,
    /// SYNs dropped because a listener's backlog was full.
    TcpListenOverflow,
    /// Client: the server took data that a SYN carried (RFC 7413).
    TcpFastOpenActive,
    /// Client: it took none of them.
    TcpFastOpenActiveFail,
    /// Client: a SYN with Fast Open was lost, the next without it was answered: not tried with that server
    /// for a while.
    TcpFastOpenBlackhole,
    /// Server: data taken from a SYN.
    TcpFastOpenPassive,
    /// Server: a SYN whose cookie was not valid.
    TcpFastOpenPassiveFail,
    /// Server: Fast Open ignored, because too many connections that used it were half-open.
    TcpFastOpenListenOverflow,
    /// Server: a SYN that asked for a cookie.
    TcpFastOpenCookieReqd,
    /// SYNs forgotten that nobody accepted, and half-open connections whose third ACK never came.
    TcpListenDrops,
    /// SYNs answered without state.
    TcpSyncookiesSent,
    /// Third ACKs that brought a valid cookie back.
    TcpSyncookiesRecv,
    /// Segments that should have brought one and did not.
    TcpSyncookiesFailed,
}

/// The value of every [`Counter`].
#[derive(Clone, Debug)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Counters([0; Counter::ALL.len()])
    }
}

impl Counters {
    /// The value of one counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Adds one.
    pub fn increment(&mut self, counter: Counter) {
        self.0[counter as usize] += 1;
    }

    /// Takes one off, of a counter that is a gauge.
    pub fn decrement(&mut self, counter: Counter) {
        let c = &mut self.0[counter as usize];
        *c = c.saturating_sub(1);
    }

    /// Counters that are not zero, by name.
    pub fn iter_nonzero(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL.iter().map(|c| (c.name(), self.get(*c))).filter(|(_, v)| *v != 0)
    }
}

/// One observation: what, when and to whom.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Observation {
    /// When it happened.
    pub now: Instant,
    /// The connection concerned, if any.
    pub connection: Option<ConnectionId>,
    /// The subflow concerned, if any.
    pub subflow: Option<SubflowId>,
    /// What happened.
    pub what: Counter,
    /// Whether it counts up; only gauges ([`Counter::MPCurrEstab`]) count down.
    pub change: CounterChange,
}

/// What an observation does to its counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CounterChange {
    /// One more.
    Up,
    /// One less.
    Down,
}

impl Observation {
    /// Something that happened to the stack as a whole.
    pub fn new(now: Instant, what: Counter) -> Self {
        Observation { now, connection: None, subflow: None, what, change: CounterChange::Up }
    }

    /// It happened to that connection.
    pub fn of(mut self, connection: ConnectionId) -> Self {
        self.connection = Some(connection);
        self
    }
}

/// Who is told at once.
pub trait Observer: Send {
    /// Called where it happens, inside the stack: must be quick and must not call the stack.
    fn observe(&mut self, observation: &Observation);
}
