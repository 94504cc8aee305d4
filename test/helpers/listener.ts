import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** One request that came. */
export interface Heard {
  readonly method: string
  readonly path: string
  /** Parsed; null where there was none. */
  readonly body: Record<string, unknown> | null
}

/** A server on loopback that takes whatever it is told, as receivers of alerts do. */
export class Listener {
  readonly heard: Heard[] = []
  /** How it answers, by path; 202 where nothing is said. */
  readonly answers = new Map<string, (response: ServerResponse) => void>()
  private readonly server: Server

  private constructor() {
    this.server = createServer((request, response) => {
      let text = ''
      request.on('data', chunk => {
        text += String(chunk)
      })
      request.on('end', () => {
        const { method = '', url = '' } = request
        this.heard.push({ method, path: url, body: text === '' ? null : JSON.parse(text) })
        const answer = this.answers.get(url)
        if (answer) answer(response)
        else response.writeHead(202).end('ok')
      })
    })
  }

  static async start(): Promise<Listener> {
    const listener = new Listener()
    await new Promise<void>(done => listener.server.listen(0, '127.0.0.1', done))
    return listener
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  /** What came at a path, in order. */
  at(path: string): (Record<string, unknown> | null)[] {
    return this.heard.filter(each => each.path === path).map(({ body }) => body)
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections()
    await new Promise(done => this.server.close(done))
  }
}
