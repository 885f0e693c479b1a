"""What lies under the machines on AWS: VPC, subnets, routes, packet filters, and a balancer."""

from components.network.balancer import Balancer, BalancerArgs
from components.network.component import Network, NetworkArgs
from components.network.endpoint import Endpoint, EndpointArgs

__all__ = ["Balancer", "BalancerArgs", "Endpoint", "EndpointArgs", "Network", "NetworkArgs"]
