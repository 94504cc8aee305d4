import type { IncomingMessage } from 'node:http'
import WebSocket from 'ws'
import { L3capError } from '../core/errors.ts'

/** Larger messages end the connection: no exchange sends them, and they would fill the memory. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024
const HANDSHAKE_MS_MAX = 10_000
/** How long the far end may take to end the TCP connection after the closing was said. */
const CLOSING_MS_MAX = 1000
/** Longer than any exchange bans an address: who says more says nothing. */
const RETRY_AFTER_MS_MAX = 3 * 24 * 3_600_000

/** What happens to a socket after it is open. `onEnd` comes once, last. */
export interface SocketEvents {
  onMessage(data: Buffer, isBinary: boolean): void
  onEnd(code: number, reason: string): void
}

/** The server answered the upgrade with an HTTP status; `waitMs`: how long it said to wait, 0 when it did not. */
export class UpgradeRefused extends L3capError {
  readonly status: number
  readonly waitMs: number

  constructor(status: number, waitMs: number) {
    super('REST', `the server answered ${status}`)
    this.status = status
    this.waitMs = waitMs
  }
}

/** Milliseconds of a `Retry-After` header: seconds, or a date. 0 when there is none, or none that makes sense. */
export function retryAfterMs(header: string | null | undefined, nowMs: number): number {
  if (!header) return 0
  const waitMs = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - nowMs
  return waitMs > 0 && waitMs <= RETRY_AFTER_MS_MAX ? waitMs : 0
}

/** One WebSocket, one life. UTF-8 is checked by the journal, so that broken text is kept instead of ending it. */
export class Socket {
  private readonly ws: WebSocket
  private events: SocketEvents | undefined
  private failure = ''

  private constructor(ws: WebSocket) {
    this.ws = ws
  }

  /**
   * Opens a socket. Rejects when the server cannot be reached, refuses (`UpgradeRefused`), cannot prove who it is, or when
   * `onOpen` throws. The signal cuts it.
   */
  static open(url: string, signal: AbortSignal, onOpen: (socket: Socket) => SocketEvents): Promise<Socket> {
    const options: WebSocket.ClientOptions & { closeTimeout: number } = {
      perMessageDeflate: false,
      maxPayload: MESSAGE_BYTES_MAX,
      skipUTF8Validation: true,
      closeTimeout: CLOSING_MS_MAX,
      // Said, so that no variable of the environment can switch it off.
      rejectUnauthorized: true
    }
    const ws = new WebSocket(url, options)
    const socket = new Socket(ws)
    return new Promise((resolve, reject) => {
      // One deadline for all of it: a server that says a byte now and then is never silent.
      const deadline = setTimeout(() => {
        reject(new L3capError('REST', `not connected within ${HANDSHAKE_MS_MAX} ms`))
        ws.terminate()
      }, HANDSHAKE_MS_MAX)
      const abort = () => ws.terminate()
      signal.addEventListener('abort', abort)
      ws.on('open', () => {
        clearTimeout(deadline)
        try {
          socket.events = onOpen(socket)
          resolve(socket)
        } catch (error) {
          reject(error)
          ws.terminate()
        }
      })
      ws.on('message', (data, isBinary) => socket.events?.onMessage(data as Buffer, isBinary))
      ws.on('unexpected-response', (_, response: IncomingMessage) => {
        reject(new UpgradeRefused(response.statusCode ?? 0, retryAfterMs(response.headers['retry-after'], Date.now())))
        ws.terminate()
      })
      // The library does not tell why TCP has ended.
      ws.on('upgrade', ({ socket: tcp }) => {
        tcp.on('error', error => {
          socket.failure = error.message
        })
      })
      ws.on('error', error => {
        socket.failure = error.message
        reject(error)
        // What cannot be read any more is over: the far end is not waited for.
        socket.terminate(error.message)
      })
      ws.on('close', (code, reason) => {
        clearTimeout(deadline)
        signal.removeEventListener('abort', abort)
        const { events } = socket
        socket.events = undefined
        events?.onEnd(code, reason.toString() || socket.failure || (code === 1006 ? 'no close frame' : ''))
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
