/**
 * A child process: an exchange that acknowledges and then plays prepared frames at a rate. Prints its port, `done` when
 * all frames were handed to the socket. Arguments: exchange, frames, frames a second.
 */
import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'
import { bitfinexFrames, okxFrames } from './frames.js'

const [exchange, count, rate] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])]
const frames = exchange === 'bitfinex' ? bitfinexFrames(count) : okxFrames(count)
const http = createServer((_, response) => response.writeHead(404).end('{}'))
const server = new WebSocketServer({ server: http, perMessageDeflate: false })
const STEP_MS = 5

server.on('connection', socket => {
  const answer = value => socket.send(JSON.stringify(value))
  if (exchange === 'bitfinex') answer({ event: 'info', version: 2, platform: { status: 1 } })
  socket.on('message', data => {
    const text = data.toString()
    if (text === 'go') return play(socket)
    const message = JSON.parse(text)
    if (message.event === 'conf') answer({ event: 'conf', status: 'OK', flags: message.flags })
    else if (message.event === 'subscribe') {
      const chanId = message.channel === 'book' ? 1001 : 1002
      answer({ ...message, event: 'subscribed', chanId })
      if (chanId === 1001) play(socket)
    } else if (message.op === 'subscribe') {
      answer({ id: message.id, event: 'subscribe', arg: message.args[0], connId: 'a' })
      if (message.args[0].channel === 'books') play(socket)
    }
  })
})

function play(socket) {
  const began = performance.now()
  let sent = 0
  const timer = setInterval(() => {
    const due = Math.min(frames.length, Math.ceil(((performance.now() - began) / 1000) * rate))
    while (sent < due) socket.send(frames[sent++])
    if (sent < frames.length) return
    clearInterval(timer)
    console.log('done')
  }, STEP_MS)
}

http.listen(0, '127.0.0.1', () => console.log(`port ${http.address().port}`))
process.on('disconnect', () => process.exit())
