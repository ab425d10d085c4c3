//! Cutting a subnet: where virtual addresses are, where each host's containers are.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::overlap;

/// The smallest subnet that has room for a gateway, two containers and a virtual address.
pub(super) const LONGEST_PREFIX: u8 = 29;

/// Subnets of this prefix length and shorter are cut into blocks of [`BLOCK_PREFIX`].
const LARGE_PREFIX: u8 = 20;

/// Block of a large subnet: 256 virtual addresses, or the containers of one host.
const BLOCK_PREFIX: u8 = 24;

/// No host gets a slice with fewer addresses than a block of this prefix length has.
const SMALLEST_HOST_PREFIX: u8 = 30;

/// What the virtual addresses of a subnet must keep clear of, and how many are needed.
pub(super) struct Wishes<'a> {
    pub(super) subnet: Ipv4Net,
    pub(super) gateway: Ipv4Addr,
    pub(super) ip_range: Option<Ipv4Net>,
    /// Addresses that others than containers have.
    pub(super) reserved: &'a [Ipv4Addr],
    pub(super) fixed: &'a [Ipv4Addr],
    pub(super) services: usize,
}

impl Wishes<'_> {
    /// Returns whether gateway, range and reserved addresses leave `vips` alone. Fixed addresses are not looked at.
    pub(super) fn layout_allows(&self, vips: Ipv4Net) -> bool {
        !vips.contains(&self.gateway)
            && !self.reserved.iter().any(|address| vips.contains(address))
            && !self.ip_range.is_some_and(|range| overlap(range, vips))
    }

    fn allows(&self, vips: Ipv4Net) -> bool {
        self.layout_allows(vips)
            && !self.fixed.iter().any(|address| vips.contains(address))
            && usable(vips, self.subnet) >= self.services.max(1)
    }
}

/// Returns the block for virtual addresses: the topmost free one of the usual size, else a smaller, else a larger one.
pub(super) fn vip_slice(wishes: &Wishes<'_>) -> Option<Ipv4Net> {
    let prefix = wishes.subnet.prefix_len();
    let usual = if prefix <= LARGE_PREFIX { BLOCK_PREFIX } else { prefix + 2 };
    let smaller = usual + 1..=31;
    let larger = (prefix + 1..usual).rev();
    std::iter::once(usual)
        .chain(smaller)
        .chain(larger)
        .find_map(|size| blocks(wishes.subnet, size).rev().find(|block| wishes.allows(*block)))
}

/// Returns the range from which host `host_index` gives addresses to containers; disjoint from every other host's and
/// from the virtual addresses. `None`: the subnet has no slice left for that host.
pub fn container_slice(subnet: Ipv4Net, vips: Ipv4Net, ip_range: Option<Ipv4Net>, host_index: u32) -> Option<Ipv4Net> {
    let index = usize::try_from(host_index).ok()?;
    if let Some(range) = ip_range {
        return (index == 0).then_some(range);
    }
    if subnet.prefix_len() <= LARGE_PREFIX {
        return blocks(subnet, BLOCK_PREFIX).filter(|block| !overlap(*block, vips)).nth(index);
    }
    let mut free = without(subnet, vips);
    let first = take_largest(&mut free)?;
    if index == 0 {
        return Some(first);
    }
    // Each further host gets the lower half of the largest part left: it need not be known how many will come.
    for host in 1.. {
        let part = take_largest(&mut free)?;
        let half = part.prefix_len() + 1;
        if half > SMALLEST_HOST_PREFIX {
            return None;
        }
        let mut halves = blocks(part, half);
        let (lower, upper) = (halves.next()?, halves.next()?);
        if host == index {
            return Some(lower);
        }
        free.push(upper);
    }
    None
}

fn take_largest(free: &mut Vec<Ipv4Net>) -> Option<Ipv4Net> {
    let index = (0..free.len()).min_by_key(|i| (free[*i].prefix_len(), free[*i].network()))?;
    Some(free.swap_remove(index))
}

/// Returns `net` without `hole` as the fewest blocks.
fn without(net: Ipv4Net, hole: Ipv4Net) -> Vec<Ipv4Net> {
    if hole.contains(&net) {
        return Vec::new();
    }
    if !overlap(net, hole) {
        return vec![net];
    }
    blocks(net, net.prefix_len() + 1).flat_map(|half| without(half, hole)).collect()
}

/// Returns how many addresses of `block` can be used: all but the network's own and the broadcast address of `subnet`.
pub(super) fn usable(block: Ipv4Net, subnet: Ipv4Net) -> usize {
    let size = 1_usize << (32 - block.prefix_len());
    size - usize::from(block.contains(&subnet.network())) - usize::from(block.contains(&subnet.broadcast()))
}

/// Returns the blocks of a prefix length in `net`, lowest first; none where that is shorter than `net`'s own.
pub(super) fn blocks(net: Ipv4Net, prefix: u8) -> impl DoubleEndedIterator<Item = Ipv4Net> {
    let count = if prefix < net.prefix_len() || prefix > 32 { 0 } else { 1_u64 << (prefix - net.prefix_len()) };
    let base = u64::from(net.network().to_bits());
    (0..count).filter_map(move |number| {
        let start = base + (number << (32 - prefix));
        Ipv4Net::new(Ipv4Addr::from_bits(u32::try_from(start).ok()?), prefix).ok()
    })
}

/// Returns all addresses of `net`, beginning after `last` and going round once.
pub(super) fn addresses_after(net: Ipv4Net, last: Option<Ipv4Addr>) -> impl Iterator<Item = Ipv4Addr> {
    let base = net.network().to_bits();
    let size = 1_u64 << (32 - net.prefix_len());
    let begin = last.map_or(0, |last| u64::from(last.to_bits() - base) + 1);
    (0..size).filter_map(move |offset| {
        let step = u32::try_from((begin + offset) % size).ok()?;
        Some(Ipv4Addr::from_bits(base + step))
    })
}
