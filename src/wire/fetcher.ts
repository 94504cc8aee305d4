import { request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import pRetry, { AbortError } from 'p-retry'
import { L3capError, messageOf } from '../core/errors.ts'
import type { FetchRequest } from '../exchanges/exchange.ts'
import { Gate, isRefusal } from './pace.ts'
import { retryAfterMs } from './socket.ts'

const ANSWER_MS_MAX = 15_000
const ANSWER_BYTES_MAX = 64 * 1024 * 1024

/** What came back; status 0 and the reason as the text when nothing did. */
export interface Answer {
  readonly status: number
  readonly text: string
}

/**
 * REST of one host within an exchange's budget of weight. Refusals (429, 418, 503) hold back every request to the host
 * for as long as the exchange says.
 */
export class Fetcher {
  private readonly base: string
  private readonly gate: Gate

  constructor(base: string, weightPerMinuteMax: number) {
    this.base = base.replace(/\/$/, '')
    this.gate = new Gate(weightPerMinuteMax)
  }

  /** The whole address of a path. */
  url(path: string): string {
    return this.base + path
  }

  /** Sends a request when its turn has come. Rejects only when the signal aborts. */
  async send(request: Omit<FetchRequest, 'id'>, signal: AbortSignal): Promise<Answer> {
    await this.gate.pass(signal, request.weight ?? 1)
    const beganMs = performance.now()
    const limited = new AbortController()
    const abort = () => limited.abort(signal.reason)
    const timer = setTimeout(() => limited.abort(new Error(`no answer within ${ANSWER_MS_MAX} ms`)), ANSWER_MS_MAX)
    signal.addEventListener('abort', abort, { once: true })
    try {
      const answer = await exchange(this.base + request.path, request.post, limited.signal)
      this.heed(answer.status, answer.retryAfter, beganMs)
      return answer
    } catch (error) {
      signal.throwIfAborted()
      return { status: 0, text: messageOf(limited.signal.aborted ? limited.signal.reason : error) }
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    }
  }

  private heed(status: number, retryAfter: string | undefined, beganMs: number): void {
    if (isRefusal(status)) this.gate.refused(retryAfterMs(retryAfter, Date.now()), beganMs)
    else if (status > 0 && status < 500) this.gate.admitted()
  }

  /** The JSON at a path. Throws `L3capError` REST after `tries` attempts. */
  async json(path: string, signal: AbortSignal, tries = 3, weight = 1): Promise<unknown> {
    try {
      return await pRetry(() => this.attempt(path, weight, signal), {
        retries: tries - 1,
        minTimeout: 500,
        maxTimeout: 5000,
        randomize: true,
        signal
      })
    } catch (error) {
      throw new L3capError('REST', `GET ${this.base}${path}: ${messageOf(error)}`, { cause: error })
    }
  }

  private async attempt(path: string, weight: number, signal: AbortSignal): Promise<unknown> {
    const { status, text } = await this.send({ path, weight }, signal)
    if (status >= 200 && status < 300) return JSON.parse(text)
    const said = status === 0 ? text : `status ${status} ${text.slice(0, 200)}`
    const isFinal = status >= 400 && status < 500 && status !== 429 && status !== 418
    throw isFinal ? new AbortError(said) : new Error(said)
  }
}

/** One request, without the 7 MB that the built-in `fetch` would keep resident. */
function exchange(
  url: string,
  post: FetchRequest['post'],
  signal: AbortSignal
): Promise<Answer & { retryAfter: string | undefined }> {
  return new Promise((resolve, reject) => {
    const receive = (response: IncomingMessage) => {
      const chunks: Buffer[] = []
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > ANSWER_BYTES_MAX) response.destroy(new Error(`answer larger than ${ANSWER_BYTES_MAX} bytes`))
        else chunks.push(chunk)
      })
      response.on('error', reject)
      response.on('aborted', () => reject(new Error('the answer was cut short')))
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          retryAfter: response.headers['retry-after'],
          text: Buffer.concat(chunks).toString()
        })
      )
    }
    const options = {
      method: post ? 'POST' : 'GET',
      // Some exchanges refuse requests without a name.
      headers: { 'user-agent': 'l3cap', accept: 'application/json', ...post?.headers },
      // Said, so that no variable of the environment can switch it off.
      rejectUnauthorized: true,
      signal
    }
    const send = url.startsWith('https:') ? httpsRequest : httpRequest
    const request = send(url, options, receive)
    request.on('error', reject)
    request.end(post?.body)
  })
}
