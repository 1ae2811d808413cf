package session

// keepSlots is how large a ring may stay when it runs empty. A burst is given
// back to the collector, the steady state never allocates.
const keepSlots = 256

// ring is a queue in a circular buffer whose length is a power of two.
type ring[T any] struct {
	slots []T
	head  int
	n     int
}

// at returns the i-th element from the front; i must be below n.
func (r *ring[T]) at(i int) *T {
	return &r.slots[(r.head+i)&(len(r.slots)-1)]
}

func (r *ring[T]) push(v T) {
	if r.n == len(r.slots) {
		r.grow()
	}
	*r.at(r.n) = v
	r.n++
}

// pop removes the front; the ring must not be empty.
func (r *ring[T]) pop() T {
	var zero T
	p := r.at(0)
	v := *p
	*p = zero
	r.head = (r.head + 1) & (len(r.slots) - 1)
	r.n--
	if r.n == 0 && len(r.slots) > keepSlots {
		*r = ring[T]{}
	}
	return v
}

func (r *ring[T]) grow() {
	slots := make([]T, max(8, 2*len(r.slots)))
	for i := range r.n {
		slots[i] = *r.at(i)
	}
	r.slots, r.head = slots, 0
}
