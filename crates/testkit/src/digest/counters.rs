//! The tags of counters.

use umptcp_stack_core::observe::Counter;

macro_rules! tags {
    ($($name:ident = $tag:literal,)*) => {
        /// The tag of a counter. It never changes, whatever the counter is called; a new one gets the next
        /// number.
        pub(super) fn counter(counter: Counter) -> u8 {
            match counter { $(Counter::$name => $tag,)* }
        }
    };
}

tags! {
    MPCapableSYNRX = 1, MPCapableSYNTX = 2, MPCapableSYNACKRX = 3, MPCapableACKRX = 4,
    MPCapableFallbackACK = 5, MPCapableFallbackSYNACK = 6, MPCapableSYNTXDrop = 7, MPCapableSYNTXDisabled = 8,
    Blackhole = 9, MPFallbackTokenInit = 10, MPJoinNoTokenFound = 11, MPJoinSynRx = 12, MPJoinSynBackupRx = 13,
    MPJoinSynAckRx = 14, MPJoinSynAckBackupRx = 15, MPJoinSynAckHMacFailure = 16, MPJoinAckRx = 17,
    MPJoinAckHMacFailure = 18, MPJoinRejected = 19, MPJoinPortSynRx = 20, MPJoinPortSynAckRx = 21,
    MPJoinPortAckRx = 22, MismatchPortSynRx = 23, MismatchPortAckRx = 24, MPJoinHalfOpenDrop = 25,
    MPJoinSynTx = 26, MPJoinSynTxBindErr = 27, MPJoinSynTxPutOff = 28, MPJoinSynTxCreatSkErr = 29,
    MPCapableAckOvertaken = 30, MPCapableKeyMismatch = 31, MPTCPRetrans = 32, DSSNotMatching = 33,
    DSSNoMatchTCP = 34, DSSCorruptionFallback = 35, DSSCorruptionReset = 36, DSSTooMany = 37,
    DataAckInvalid = 38, InfiniteMapTx = 39, InfiniteMapRx = 40, DataCsumErr = 41, OFOQueueTail = 42,
    OFOQueue = 43, OFOMerge = 44, NoDSSInWindow = 45, DuplicateData = 46, AddAddr = 47, AddAddrTx = 48,
    AddAddrTxDrop = 49, EchoAdd = 50, EchoAddTx = 51, EchoAddTxDrop = 52, PortAdd = 53, AddAddrDrop = 54,
    RmAddr = 55, RmAddrDrop = 56, RmAddrTx = 57, RmAddrTxDrop = 58, RmSubflow = 59, MPPrioTx = 60,
    MPPrioRx = 61, MPFailTx = 62, MPFailRx = 63, MPFailUnexpected = 64, MPFastcloseTx = 65, MPFastcloseRx = 66,
    MPFastcloseKeyMismatch = 67, MPRstTx = 68, MPRstRx = 69, SubflowStale = 70, SubflowRecover = 71,
    WinProbe = 72, MPTCPTimeouts = 73, MPCapableDataFallback = 74, DssFallback = 75,
    SimultConnectFallback = 76, FallbackFailed = 77, MPCurrEstab = 78, TcpRetransSegs = 79, TcpTimeouts = 80,
    TcpFastRecovery = 81, TcpLossProbes = 82, TcpLossProbeRecovery = 83, TcpSpuriousRTOs = 84,
    TcpLossUndo = 85, TcpFullUndo = 86, TcpDSACKUndo = 87, TcpECNReductions = 88, TcpInCEPkts = 89,
    TcpPmtuReduced = 90, TcpPmtuBlackHole = 91, TcpMTUPSuccess = 92, TcpMTUPFail = 93,
    TcpOutOfWindowIcmps = 94, TcpAbortOnTimeout = 95, TcpOFODrop = 96, TcpInCsumErrors = 97, TcpInErrs = 98,
    TcpInAddrErrors = 99, TcpReasmFails = 100, TcpIcmpInErrors = 101, TcpOutRsts = 102, TcpChallengeAck = 103,
    TcpACKSkippedChallenge = 104, TcpPawsRejected = 105, TcpListenOverflow = 106, TcpFastOpenActive = 107,
    TcpFastOpenActiveFail = 108, TcpFastOpenBlackhole = 109, TcpFastOpenPassive = 110,
    TcpFastOpenPassiveFail = 111, TcpFastOpenListenOverflow = 112, TcpFastOpenCookieReqd = 113,
    TcpListenDrops = 114, TcpSyncookiesSent = 115, TcpSyncookiesRecv = 116, TcpSyncookiesFailed = 117,
    DataAckProbe = 118, TcpAbortOnMemory = 119, MPTCPRepeat = 120, MPTCPOpportunistic = 121,
    SubflowPenalised = 122, SubflowMeasured = 123, SubflowSuspect = 124, SubflowSuspectNeedless = 125,
    TcpRcvQDrop = 126, TcpOfoPruned = 127, TcpMemoryPressures = 128, PathCapReached = 129,
}
