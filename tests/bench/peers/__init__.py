"""The systems compared, each behind `bench.peers.base.Peer`."""
