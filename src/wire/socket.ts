import type { IncomingMessage } from 'node:http'
import WebSocket from 'ws'
import { L3capError } from '../core/errors.ts'

/** Larger messages end the connection: no exchange sends them, and they would fill the memory. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024
const HANDSHAKE_MS_MAX = 10_000

/** What happens to a socket after it is open. `onEnd` comes once, last. */
export interface SocketEvents {
  onMessage(data: Buffer, isBinary: boolean): void
  onEnd(code: number, reason: string): void
}

/** The server refused the upgrade and said how long to wait. */
export class RetryAfter extends L3capError {
  readonly waitMs: number

  constructor(message: string, waitMs: number) {
    super('REST', message)
    this.waitMs = waitMs
  }
}

/** Milliseconds of a `Retry-After` header: seconds, or a date. 0 when there is none. */
export function retryAfterMs(header: string | null | undefined, nowMs: number): number {
  if (!header) return 0
  if (/^\d+$/.test(header)) return Number(header) * 1000
  const at = Date.parse(header)
  return Number.isNaN(at) ? 0 : Math.max(0, at - nowMs)
}

/** One WebSocket, one life. UTF-8 is checked by the journal, so that broken text is kept instead of ending it. */
export class Socket {
  private readonly ws: WebSocket
  private events: SocketEvents | undefined
  private failure = ''

  private constructor(ws: WebSocket) {
    this.ws = ws
  }

  /** Opens a socket. Rejects when the server cannot be reached or refuses; `RetryAfter` when it says how long. The signal cuts it. */
  static open(url: string, signal: AbortSignal, onOpen: (socket: Socket) => SocketEvents): Promise<Socket> {
    const ws = new WebSocket(url, {
      perMessageDeflate: false,
      maxPayload: MESSAGE_BYTES_MAX,
      skipUTF8Validation: true,
      handshakeTimeout: HANDSHAKE_MS_MAX
    })
    const socket = new Socket(ws)
    return new Promise((resolve, reject) => {
      const abort = () => ws.terminate()
      signal.addEventListener('abort', abort)
      ws.on('open', () => {
        socket.events = onOpen(socket)
        resolve(socket)
      })
      ws.on('message', (data, isBinary) => socket.events?.onMessage(data as Buffer, isBinary))
      ws.on('unexpected-response', (_, response: IncomingMessage) => {
        const waitMs = retryAfterMs(response.headers['retry-after'], Date.now())
        reject(new RetryAfter(`the server answered ${response.statusCode}`, waitMs))
        ws.terminate()
      })
      ws.on('error', error => {
        socket.failure = error.message
        reject(error)
      })
      ws.on('close', (code, reason) => {
        signal.removeEventListener('abort', abort)
        const { events } = socket
        socket.events = undefined
        events?.onEnd(code, reason.toString() || socket.failure)
      })
    })
  }

  /** Sends a text; false when the socket is no longer open. */
  send(text: string): boolean {
    if (this.ws.readyState !== WebSocket.OPEN) return false
    this.ws.send(text)
    return true
  }

  /** Ends the socket without hearing of it again. */
  leave(): void {
    this.events = undefined
    this.ws.close(1000)
    // A peer that does not answer the closing must not keep the process.
    setTimeout(() => this.ws.terminate(), 2000).unref()
  }

  /** Cuts the connection; `onEnd` follows at once, as a half-open socket would not tell. */
  terminate(reason: string): void {
    const { events } = this
    this.events = undefined
    this.ws.terminate()
    events?.onEnd(1006, reason)
  }
}
