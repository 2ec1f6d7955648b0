package relationship

import (
	"time"

	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
)

func (o *owner) persist(c change) answered {
	before := o.record()
	after := before
	var recorded []event.Event
	var answer []byte
	err := o.config.Store.Update(func(tx state.Tx) (err error) {
		answer, err = o.config.Requests.Do(tx, c.request, func() ([]byte, error) {
			var events []event.Event
			if after, events, err = c.transition(before); err != nil {
				return nil, err
			}
			if recorded, err = o.write(tx, c, after, events); err != nil || c.answer == nil {
				return nil, err
			}
			return c.answer(after), nil
		})
		return err
	})
	if err != nil {
		return answered{record: before, err: failure.Locate(err, before.Name, "")}
	}
	o.saved.Store(&after)
	o.version++
	o.notBefore = time.Time{}
	o.erased = c.erase
	if before.Spec.ReplicaAddress != after.Spec.ReplicaAddress {
		o.checkAt = time.Time{}
		o.live.change(func(l *Live) { l.reconciled = time.Time{} })
	}
	o.config.Events.Publish(recorded...)
	o.tell(before, after)
	return answered{record: after, answer: answer}
}

// write keeps what happened and the record in one transaction.
func (o *owner) write(tx state.Tx, c change, after Record, events []event.Event) (recorded []event.Event, err error) {
	for _, e := range events {
		numbered, err := o.config.Events.Append(tx, e)
		if err != nil {
			return nil, err
		}
		recorded = append(recorded, numbered)
	}
	if c.erase {
		return recorded, erase(tx, after.Name)
	}
	return recorded, save(tx, after)
}

// tell logs a change of state.
func (o *owner) tell(before, after Record) {
	if from, to := before.State(), after.State(); from != to && before.Prepared {
		o.log.Info("the state changed", "from", from.String(), "to", to.String())
	}
}
