import type { Host, Limits } from './exchange.ts'

/** When the far end was heard last and asked last whether it is there, µs. Plain data. */
export interface PulseState {
  heardUs: number
  askedUs: number
}

/** Whether a connection as a whole is alive: asks after a time of quiet, hangs up when no answer comes. */
export class Pulse {
  state: PulseState = { heardUs: 0, askedUs: 0 }
  private readonly host: Host
  private readonly limits: Limits
  private readonly ping: () => void

  constructor(host: Host, limits: Limits, ping: () => void) {
    this.host = host
    this.limits = limits
    this.ping = ping
  }

  /** Something came. */
  heard(): void {
    this.state.heardUs = this.host.us
  }

  /** Time passes. False: the connection is given up. */
  tick(): boolean {
    const { heardUs, askedUs } = this.state
    const { ackMsMax, pingMs } = this.limits
    const isAsked = askedUs > heardUs
    if (isAsked && this.host.us - askedUs > ackMsMax * 1000) {
      this.host.hangup(`no answer to ping within ${ackMsMax} ms`)
      return false
    }
    // One question at a time: another one would begin the wait for the answer anew.
    if (!isAsked && this.host.us - heardUs > pingMs * 1000) {
      this.state.askedUs = this.host.us
      this.ping()
    }
    return true
  }
}
