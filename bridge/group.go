package bridge

import (
	"context"
	"errors"
	"sync"
)

// Group is all bridges of a process. They may change while it runs.
type Group struct {
	mu      sync.Mutex
	members []*member
	over    bool
}

type member struct {
	*Bridge
	cancel context.CancelFunc
	ended  chan struct{}
}

// Apply makes the bridges of list those that run: others are stopped, and so is one of the same name unless same says that it
// is as it was. On error nothing has changed.
func (g *Group) Apply(list []Options, same func(name string) bool) error {
	var errs []error
	made := make([]*member, len(list))
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, o := range list {
		if made[i] = g.member(o.Name); made[i] != nil && same(o.Name) {
			continue
		}
		b, err := New(o)
		errs = append(errs, err)
		made[i] = &member{Bridge: b}
	}
	if err := errors.Join(errs...); err != nil || g.over {
		return err
	}
	before := g.members
	g.members = made
	for _, m := range before {
		if now := g.member(m.o.Name); now != m {
			if m.stop(); now != nil {
				now.succeed(m.Bridge)
			}
		}
	}
	for _, m := range made {
		if m.ended == nil {
			m.start()
		}
	}
	return nil
}

// member returns nil where there is none of that name; mu is held.
func (g *Group) member(name string) *member {
	for _, m := range g.members {
		if m.o.Name == name {
			return m
		}
	}
	return nil
}

func (m *member) start() {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.ended = cancel, make(chan struct{})
	go func() {
		defer close(m.ended)
		_ = m.Run(ctx) // it ends when it is told to, and then without an error
	}()
}

func (m *member) stop() {
	m.cancel()
	<-m.ended
}

// Run waits for the end of ctx, and stops them.
func (g *Group) Run(ctx context.Context) error {
	<-ctx.Done()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	for _, m := range g.members {
		m.cancel()
	}
	for _, m := range g.members {
		<-m.ended
	}
	return nil
}

// Status is that of all bridges, in the order of the list.
func (g *Group) Status() []Status {
	g.mu.Lock()
	members := g.members
	g.mu.Unlock()
	all := make([]Status, len(members))
	for i, m := range members {
		all[i] = m.Status()
	}
	return all
}
