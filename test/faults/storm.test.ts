import { expect, test } from 'vitest'
import { recordsOf } from '../helpers/vault.ts'
import { live, onStage, until } from './harness.ts'

test(
  'a hole in frames that waited is met by one new subscription, not by one for each of them',
  { timeout: 60_000 },
  () =>
    onStage({ seed: 16, kind: 'pause', eventsPerSecond: 200 }, async stage => {
      const symbol = 'BTC-USDT-SWAP'
      const told = (event: string) => recordsOf(stage.vault, 'okx', 'status', symbol).filter(row => row.event === event)
      const running = stage.start()
      await running.heard()
      process.kill(running.pid, 'SIGSTOP')
      stage.simulators[1]!.inject({ kind: 'drop', instrument: symbol })
      await live(2000)
      process.kill(running.pid, 'SIGCONT')
      await until(
        () => told('synced').length >= 2,
        () => stage.about('not synced again')
      )
      expect(await running.stop()).toBe(0)
      expect(told('gap').filter(row => (row.detail as { channel?: string }).channel === undefined)).toHaveLength(1)
      expect(told('resubscribed'), stage.about('resubscribed')).toHaveLength(1)
      expect(stage.judge().findings).toEqual([])
    })
)
