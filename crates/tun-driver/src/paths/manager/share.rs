//! The instance's share of the host's ephemeral ports.

use super::Manager;
use super::tables::install_table;
use crate::described::Mode;
use crate::error::DriverError;
use crate::paths::ports::{self, Ports};
use crate::paths::record::{HostChange, RegistryLock, used_ports};
use crate::paths::ruleset;

impl Manager {
    /// Reserves ports for translated connections, unless that has been done.
    pub(super) fn reserve_ports(&mut self, lock: &RegistryLock) -> Result<(), DriverError> {
        if self.ranges.is_empty() {
            let range = self.reserve_range(lock)?;
            self.ranges.push(range);
        }
        Ok(())
    }

    /// Reserves a range of ports, the first or one more.
    fn reserve_range(&mut self, lock: &RegistryLock) -> Result<Ports, DriverError> {
        let record = self.record.as_mut().ok_or(DriverError::Gone)?;
        let others = self.registry.survey(lock, Some(record))?.0;
        let others = used_ports(others.iter().flatten());
        let asked = self.options.port_range.as_ref();
        let ((first, last), reserve) = ports::choose_range(asked, &self.ranges, &others)?;
        let more = !self.ranges.is_empty();
        if reserve {
            record.note(None, HostChange::ReservedPorts { first, last })?;
            ports::reserve(first, last)?;
            tracing::info!(first, last, more, "reserved local ports for translated connections until exit");
        } else {
            record.note(None, HostChange::UsedPorts { first, last })?;
            tracing::info!(
                first,
                last,
                more,
                "translated connections use local ports that were reserved already"
            );
        }
        Ok((first, last))
    }

    /// The ranges from which the stack chooses ports.
    pub(super) fn stack_ranges(&self) -> Vec<Ports> {
        ruleset::stack_ports(&self.ranges, self.options.stateless)
    }

    /// Takes as many ports again as the instance has, or what is left.
    pub(super) async fn more_ports(&mut self) -> Result<Ports, DriverError> {
        if self.ranges.is_empty() {
            return Err(DriverError::Gone);
        }
        let registry = self.registry.clone();
        let lock = registry.lock()?;
        let range = self.reserve_range(&lock)?;
        drop(lock);
        self.ranges.push(range);
        if let Err(error) = self.install_tables() {
            self.ranges.pop();
            // What has been told of the new ports already must not keep them.
            let _ = self.install_tables();
            let (first, last) = range;
            let changes = [HostChange::ReservedPorts { first, last }, HostChange::UsedPorts { first, last }];
            self.undo(|e| changes.contains(&e.change)).await;
            return Err(error);
        }
        Ok(range)
    }

    fn install_tables(&mut self) -> Result<(), DriverError> {
        let Some(nft) = self.nft.clone() else { return Ok(()) };
        for path in self.paths.iter_mut().filter(|p| p.mode == Mode::Nat) {
            install_table(&nft, path, &self.ranges, &self.listen)?;
        }
        Ok(())
    }
}
