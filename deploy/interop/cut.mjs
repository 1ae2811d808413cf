// A connection that breaks: forwards to a port of this machine, and closes the first connection in which the server sends a packet
// of the given type, before the client gets it. Prints its own port. usage: node cut.mjs PORT TYPE
import net from 'node:net'

const [target, type] = process.argv.slice(2).map(Number)
let whole = true // nothing was cut yet

const proxy = net.createServer((client) => {
  const server = net.connect(target, '127.0.0.1')
  const end = () => { client.destroy(); server.destroy() }
  for (const s of [client, server]) s.setNoDelay(true).on('error', end).on('close', end)
  client.pipe(server)
  let held = Buffer.alloc(0)
  server.on('data', (bytes) => {
    held = Buffer.concat([held, bytes])
    for (;;) { // packet by packet
      let width = 1, length = 0
      while (width < held.length && held[width] & 0x80) length |= (held[width] & 0x7f) << (7 * (width++ - 1))
      if (width >= held.length) return
      length |= held[width] << (7 * (width - 1))
      const size = 1 + width + length
      if (held.length < size) return
      if (whole && held[0] >> 4 === type) {
        whole = false
        return end()
      }
      client.write(held.subarray(0, size))
      held = held.subarray(size)
    }
  })
})
proxy.listen(0, '127.0.0.1', () => console.log(proxy.address().port))
