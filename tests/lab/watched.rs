//! What the system knows of a process of ours.

use std::fs;

use anyhow::{Context, Result, bail};

/// A process whose memory and time are looked at.
pub struct Watched(u32);

impl Watched {
    /// The child of this process that runs a program.
    pub fn child(name: &str) -> Result<Self> {
        for task in fs::read_dir("/proc/self/task")? {
            for pid in fs::read_to_string(task?.path().join("children"))?.split_whitespace() {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm"))?;
                // The kernel keeps 15 characters of it.
                if name.starts_with(comm.trim()) {
                    return Ok(Self(pid.parse()?));
                }
            }
        }
        bail!("{name} doesn't run")
    }

    /// This process.
    pub fn this() -> Self {
        Self(std::process::id())
    }

    /// Lets its peak of memory begin anew.
    pub fn forget_peak(&self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.0), "5")?)
    }

    /// The most memory that it has held, in MB.
    pub fn peak_mb(&self) -> Result<f64> {
        self.memory_mb("VmHWM:")
    }

    /// The memory that it holds, in MB.
    pub fn resident_mb(&self) -> Result<f64> {
        self.memory_mb("VmRSS:")
    }

    fn memory_mb(&self, which: &str) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix(which)).context("a process has memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    /// The time that it has had of the processor, in s.
    pub fn cpu_s(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        let after = text.rsplit_once(") ").context("a name in parentheses")?.1;
        let ticks: f64 = after.split(' ').skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
        // Linux counts in hundredths, whatever the kernel's own clock.
        Ok(ticks / 100.0)
    }
}
