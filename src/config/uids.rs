//! The users that containers run as.

use std::ops::RangeInclusive;

use super::ConfigError;
use super::value::Value;

/// A range of user ids that belong to the platform. Each user id is a group's id as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uids {
    /// The lowest user id.
    pub first: u32,
    /// The highest user id.
    pub last: u32,
}

impl Uids {
    /// Debian hands out ids below 60,000 to people and services, and 65,534 to nobody (Debian Policy, 9.2.2); systemd
    /// uses 60,001 to 65,519 and from 524,288 on (its `docs/UIDS-GIDS.md`); `/etc/subuid` begins at 100,000
    /// (`SUB_UID_MIN` of login.defs). So none of them has what is from 65,536 to 99,999.
    ///
    /// The range is small, because Docker reads the names of all users at each start of a container: 10,000 names take
    /// 25 ms.
    pub(super) const DEFAULT: Self = Self { first: 70_000, last: 70_999 };

    /// The most users in a range: the image of the Python runtime has a name for each user.
    const MAX: u32 = 100_000;

    /// Parses `FIRST-LAST`. The range must not hold root, nobody, or the ids that mean "no user" in 16 or 32 bits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let uids = Self { first: first.parse().ok()?, last: last.parse().ok()? };
        let is_free = [0, 65_534, 65_535, u32::MAX].into_iter().all(|taken| !(uids.first..=uids.last).contains(&taken));
        (is_free && uids.first <= uids.last && uids.last - uids.first < Self::MAX).then_some(uids)
    }

    /// Whether the range has a user for each of `containers` containers at a time, and another user for the container
    /// that checks the isolation.
    pub(super) fn suffice(self, containers: u32) -> bool {
        self.last - self.first >= containers
    }

    /// The users of functions' containers.
    pub fn of_instances(self) -> RangeInclusive<u32> {
        self.first..=self.last - 1
    }

    /// The user of the container that checks the isolation.
    pub fn of_check(self) -> u32 {
        self.last
    }
}

impl std::fmt::Display for Uids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Value<'_> {
    /// Reads a range with room for `containers` containers at a time.
    pub(super) fn uids(&self, default: Uids, containers: u32) -> Result<Uids, ConfigError> {
        let expected = format!(
            "FIRST-LAST with {} users or more, one for each of DOCKER_CONTAINER_LIMIT and one beside, and {} at most, \
             without 0, 65534 and 65535",
            containers + 1,
            Uids::MAX
        );
        let uids = self.read(default, &expected, |text| Uids::parse(text).filter(|uids| uids.suffice(containers)))?;
        // The default range may be too small for DOCKER_CONTAINER_LIMIT.
        uids.suffice(containers).then_some(uids).ok_or_else(|| self.refuse(&uids.to_string(), &expected))
    }
}
