/**
 * A child process: an exchange that answers what a capture asks for and then plays prepared frames at a rate. Prints its
 * port, and when the last frame was taken `done`, the messages sent to the connection of the book, the records they must
 * have left behind, and the bytes of a frame. Arguments: row, frames, frames a second.
 */
import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'
import { ROWS } from './rows.js'

const STEP_MS = 5
/** What comes before the image is a part of it and leaves no record: the other frames come when it has surely been taken. */
const IMAGE_MS = 500
/** What is still written or asked for when the last frame was taken. */
const SETTLE_MS = 400

const [name, count, rate] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])]
const { dialect, make } = ROWS[name]
const traffic = make(count)
const { frames, records } = traffic
const bytes = Math.round(frames.reduce((sum, frame) => sum + Buffer.byteLength(frame), 0) / count)
/** Frames that were played, the peer they are played to, and whether all is over. */
let played = 0
let reader = null
let isPlaying = false
let isOver = false

/** One connection. */
class Peer {
  memory = {}
  sent = 0

  constructor(socket) {
    this.socket = socket
  }

  send(data) {
    if (isOver) return
    this.sent++
    this.socket.send(data)
  }

  /** Sends a value in the form of the exchange. */
  answer(value) {
    const text = JSON.stringify(value)
    this.send(dialect.encode ? dialect.encode(text) : text)
  }

  /** Plays the first frame, which brings the capture to ask for the image; the others follow that. */
  lead() {
    if (reader !== null) throw new Error('the book was subscribed twice')
    reader = this
    this.send(frames[played++])
  }

  /** Plays the frames that are left. */
  play() {
    if (isPlaying) throw new Error('the frames were asked for twice')
    isPlaying = true
    reader = this
    const began = performance.now()
    const before = played
    const timer = setInterval(() => {
      const due = Math.min(count, before + Math.ceil(((performance.now() - began) / 1000) * rate))
      while (played < due) this.send(frames[played++])
      if (played < count) return
      clearInterval(timer)
      this.finish()
    }, STEP_MS)
  }

  /** Waits until the last frame was taken: messages and pings are answered in their order. */
  finish() {
    this.socket.once('pong', () =>
      setTimeout(() => {
        isOver = true
        console.log(`done ${this.sent} ${records} ${bytes}`)
      }, SETTLE_MS)
    )
    this.socket.ping()
  }
}

const http = createServer((request, response) => {
  const answer = dialect.rest?.(request.url)
  const isImage = answer === 'image'
  if (isImage) response.on('finish', () => setTimeout(() => reader.play(), IMAGE_MS))
  response.writeHead(answer === undefined ? 404 : 200, { 'content-type': 'application/json' })
  response.end(isImage ? traffic.image : (answer ?? '{}'))
})

new WebSocketServer({ server: http, perMessageDeflate: false }).on('connection', (socket, request) => {
  const peer = new Peer(socket)
  // The floor needs no greeting.
  if (request.url !== '/floor') dialect.open?.(peer)
  socket.on('message', data => {
    const text = data.toString()
    if (text === 'go') return peer.play()
    const message = text.startsWith('{') ? JSON.parse(text) : text
    if (!dialect.message(peer, message, traffic)) console.error(`${name}: no answer is known to ${text}`)
  })
})

http.listen(0, '127.0.0.1', () => console.log(`port ${http.address().port}`))
process.on('disconnect', () => process.exit())
