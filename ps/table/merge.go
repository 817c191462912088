package table

// merge adds the gradients of the parts of a step, in the order of logical shards, for one key after the other.
type merge struct {
	rows []*Rows // by logical shard
	dim  int
	at   []int // next in rows
	heap []int // logical shards that have more, the one with the smallest (key, logical shard) first
}

func (m *merge) begin(parts []*Part, table, dim int) {
	m.dim = dim
	m.rows, m.at, m.heap = m.rows[:0], sized(m.at, len(parts)), m.heap[:0]
	clear(m.at)
	for l, p := range parts {
		m.rows = append(m.rows, &p.Tables[table])
		if len(p.Tables[table].Keys) > 0 {
			m.heap = append(m.heap, l)
			m.up(len(m.heap) - 1)
		}
	}
}

func (m *merge) key(l int) uint64 { return m.rows[l].Keys[m.at[l]] }

func (m *merge) less(i, j int) bool {
	a, b := m.heap[i], m.heap[j]
	if x, y := m.key(a), m.key(b); x != y {
		return x < y
	}
	return a < b
}

func (m *merge) up(i int) {
	for i > 0 && m.less(i, (i-1)/2) {
		m.heap[i], m.heap[(i-1)/2] = m.heap[(i-1)/2], m.heap[i]
		i = (i - 1) / 2
	}
}

func (m *merge) down() {
	for i := 0; ; {
		c := 2*i + 1
		if c >= len(m.heap) {
			return
		}
		if c+1 < len(m.heap) && m.less(c+1, c) {
			c++
		}
		if !m.less(c, i) {
			return
		}
		m.heap[i], m.heap[c] = m.heap[c], m.heap[i]
		i = c
	}
}

// pop is the gradient of the smallest key by the first logical shard that has it.
func (m *merge) pop() []float32 {
	l := m.heap[0]
	g := m.rows[l].Values[m.at[l]*m.dim : (m.at[l]+1)*m.dim]
	if m.at[l]++; m.at[l] == len(m.rows[l].Keys) {
		last := len(m.heap) - 1
		m.heap[0] = m.heap[last]
		m.heap = m.heap[:last]
	}
	m.down()
	return g
}

// next is a key, and the sum of its gradients in sum.
func (m *merge) next(sum []float32) (key uint64, ok bool) {
	if len(m.heap) == 0 {
		return 0, false
	}
	key = m.key(m.heap[0])
	copy(sum, m.pop())
	for len(m.heap) > 0 && m.key(m.heap[0]) == key {
		for i, v := range m.pop() {
			sum[i] += v
		}
	}
	return key, true
}
