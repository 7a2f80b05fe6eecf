// Package bcin is the rendezvous at which the nodes of an origin meet: signed
// records of who is there, which a relay keeps in memory while they are.
//
// A record is good until its expiry, at most [MaxTTL] after it was signed, and
// replaces only records of an earlier epoch, or of the same one signed earlier.
// [Open] verifies all that a record says of itself. A [Client] opens every
// record before it returns it, so what it returns may be dialled; a relay that
// invents, alters, repeats or mixes up records changes nothing but who is
// found. A [Server] takes a record only from the peer that it names, and forgets it
// when that peer is no longer connected: nobody dials those who left.
//
// Everything is bounded: a record by [MaxSize], a message by [MaxMessage], what
// a server keeps by its [ServerConfig], what a watcher is told of by [MaxView],
// whatever the origin's number of visitors. A watcher that reads slowly is
// told less often, of the state as it is then.
//
// The wire form is in ARCHITECTURE.md, "BCIN". The neighbours: shared/node
// knows which relays are connected and the addresses through them,
// shared/swarm decides whom of those found to be connected to, relay/server
// runs the Server.
package bcin
