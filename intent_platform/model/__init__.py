"""What learns, and what it leaves behind: text vectors, network, opponents, calibration, gate; folders by digest."""
