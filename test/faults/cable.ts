import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

/** What becomes of the next connections: an HTTP answer instead of the upgrade, nothing at all, or an end. */
export type Reception = { readonly answer: string } | 'nothing' | 'reset'

interface Pair {
  readonly client: Socket
  readonly server: Socket
  isFrozen: boolean
}

/**
 * A line between a program and a simulator on loopback that can be cut, frozen and spoken on: what TCP and the machines
 * between can do to a connection. Bytes that are said here come between two frames of the simulator.
 */
export class Cable {
  /** When connections came, ms of `performance.now`. */
  readonly connectsMs: number[] = []
  /** What awaits the next connections, one each; all after that are passed on. */
  readonly receptions: Reception[] = []
  private readonly pairs = new Set<Pair>()
  private readonly all = new Set<Socket>()
  private readonly listener: Server
  private target = 0

  private constructor() {
    this.listener = createServer(client => this.receive(client))
  }

  /** Listens on a port of its own. */
  static async open(): Promise<Cable> {
    const cable = new Cable()
    await new Promise<void>(resolve => cable.listener.listen(0, '127.0.0.1', resolve))
    return cable
  }

  get port(): number {
    return (this.listener.address() as AddressInfo).port
  }

  /** Where everything goes from now on. */
  lead(port: number): void {
    this.target = port
  }

  private keep(socket: Socket): void {
    this.all.add(socket)
    socket.on('error', () => undefined)
    socket.on('close', () => this.all.delete(socket))
  }

  private receive(client: Socket): void {
    this.keep(client)
    this.connectsMs.push(performance.now())
    const reception = this.receptions.shift()
    if (reception === 'nothing') return
    if (reception === 'reset') return void client.resetAndDestroy()
    if (reception !== undefined) {
      client.once('data', () =>
        client.end(`HTTP/1.1 ${reception.answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`)
      )
      return
    }
    const server = connect(this.target, '127.0.0.1')
    this.keep(server)
    const pair = { client, server, isFrozen: false }
    this.pairs.add(pair)
    client.pipe(server)
    server.pipe(client)
    client.on('close', () => {
      this.pairs.delete(pair)
      server.destroy()
    })
    server.on('close', () => pair.isFrozen || client.destroySoon())
  }

  /** Says bytes to the program on every connection; what the simulator says afterwards is lost if `isLast`. */
  say(bytes: Buffer, isLast = false): void {
    for (const { client, server } of this.pairs) {
      if (isLast) server.unpipe(client)
      client.write(bytes)
    }
  }

  /** Nothing gets through any more, in either direction, and nobody is told. */
  freeze(): void {
    for (const pair of this.pairs) {
      const { client, server } = pair
      pair.isFrozen = true
      server.unpipe(client)
      client.unpipe(server)
      client.pause()
      server.resume()
    }
  }

  /** Ends every connection: politely, as TCP knows it, or with a reset. */
  cut(how: 'end' | 'reset'): void {
    for (const { client, server } of this.pairs) {
      server.unpipe(client)
      if (how === 'end') client.end()
      else client.resetAndDestroy()
    }
  }

  /** Ends everything. */
  async close(): Promise<void> {
    for (const socket of this.all) socket.destroy()
    await new Promise(resolve => this.listener.close(resolve))
  }
}
