package peer

import (
	"errors"
	"sync"

	"vmreplica/agent-primary/relationship"
)

// Pool keeps one Replica for each address, however many relationships it has. Methods may be called concurrently.
type Pool struct {
	config Config

	mu       sync.Mutex
	replicas map[string]*Replica // guarded by mu
}

// NewPool makes a pool. The caller closes it.
func NewPool(config Config) *Pool {
	if config.ProgressTimeout == 0 {
		config.ProgressTimeout = DefaultProgressTimeout
	}
	return &Pool{config: config, replicas: map[string]*Replica{}}
}

// At is the replica at address, spoken to about one relationship.
func (p *Pool) At(address string, about relationship.Identity) relationship.Replica {
	return &Link{replica: p.replica(address), about: about}
}

func (p *Pool) replica(address string) *Replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	replica, known := p.replicas[address]
	if !known {
		replica = newReplica(address, p.config)
		p.replicas[address] = replica
	}
	return replica
}

// Close ends every connection; calls under way end with it.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, replica := range p.replicas {
		errs = append(errs, replica.close())
	}
	return errors.Join(errs...)
}
