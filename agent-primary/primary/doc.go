// Package primary is the front of the primary agent: it puts the rooms together, serves the API and derives what
// is shown of a VM from its record and from what is going on.
//
// Vocabulary. A view is a relationship as the relationship package shows it; here it becomes a message. A request
// is a mutating call under the id that its caller gave it.
//
// Invariants. Nothing is decided here: every change is asked of the relationship's owner. What a request asks for
// is checked before anybody is asked. A watch sends what differs from what it sent before, at most once a second,
// so that to reconnect is to call again. Everything that Run starts has ended when it returns.
//
// Kept here are the agent's settings, bandwidth and number of transfers; relationships keep the rest. A restart
// shows the same and goes on with what records say.
package primary
